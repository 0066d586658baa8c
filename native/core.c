/* bossworker._core: what tiny jobs, and the starts of programs, cost most of, compiled. Optional: without it, Python does
   all of the same.

   Plain data (str, int of 64 bits, float, bytes, bool, None, and dicts and lists of these) is pickled here into the very
   bytes that `pickle` makes of it, and loaded from them; and a worker's loop runs jobs of plain data. Whatever is
   anything else is left to Python: a function then returns None, and has changed nothing.

   Everything is done with the GIL held, but what spawners do by themselves (spawners.c). While a value is packed no
   Python code can run: nothing but exact types of Python's own is looked into. */
#include "core.h"
#include <sys/prctl.h>

#define INTERFACE 6 /* bossworker/system/compiled.py must expect the same */

/* prctl(option, argument) -> its answer; the argument is a number, or a buffer that the kernel reads or fills

   To load ctypes for it takes a run 2 ms of the 60 until its first command. */
static PyObject *core_prctl(PyObject *module, PyObject *args)
{
    int option;
    PyObject *argument;
    Py_buffer view = {0};
    unsigned long given;
    if (!PyArg_ParseTuple(args, "iO", &option, &argument)) return NULL;
    if (PyLong_Check(argument)) {
        given = PyLong_AsUnsignedLong(argument);
        if (PyErr_Occurred()) return NULL;
    } else {
        if (PyObject_GetBuffer(argument, &view, PyBUF_SIMPLE) < 0) return NULL;
        given = (unsigned long)view.buf;
    }
    int answer = prctl(option, given, 0, 0, 0);
    PyBuffer_Release(&view);
    return PyLong_FromLong(answer);
}

static PyMethodDef functions[] = {
    {"pack_result", core_pack_result, METH_O, NULL},
    {"encode_blocks", core_encode_blocks, METH_VARARGS, NULL},
    {"load_block", core_load_block, METH_O, NULL},
    {"load_results", core_load_results, METH_VARARGS, NULL},
    {"attach", core_attach, METH_VARARGS, NULL},
    {"track", core_track, METH_O, NULL},
    {"prepare_starts", core_prepare_starts, METH_NOARGS, NULL},
    {"start", core_start, METH_VARARGS, NULL},
    {"look_at_start", core_look_at_start, METH_O, NULL},
    {"prctl", core_prctl, METH_VARARGS, NULL},
    {NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "bossworker._core", NULL, -1, functions};

static int add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
    PyObject *type = PyType_FromSpec(spec);
    int failed = type == NULL || PyModule_AddObjectRef(module, name, type);
    Py_XDECREF(type);
    return failed;
}

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = PyModule_Create(&definition);
    ERROR_KEY = PyUnicode_InternFromString("ERROR");
    if (module && ERROR_KEY && !PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) &&
        !add_type(module, "Loop", &loop_spec) && !add_type(module, "Spawners", &spawners_spec))
        return module;
    Py_XDECREF(module);
    return NULL;
}
