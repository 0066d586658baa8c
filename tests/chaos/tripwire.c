/* Trips a signal at the n-th instruction that Python runs in some functions: so a handler can be run at each instant at which
 * it may run, one after the other. A trace function in Python could only raise by itself, also between instructions where
 * no handler ever runs, as in the first line of a `finally`. This one marks the signal as having come, and the interpreter
 * runs its handler where it looks for signals next: as a function begins, after a call of C code, at a jump back.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>
#include <pthread.h>
#include <string.h>

static int number;       /* of the signal */
static long left;        /* instructions until it comes */
static long seen;        /* instructions since `arm` */
static char part[4096];  /* of what those functions are called, as "/path/of/file.py:Class.function" */

/* Whether a function is one of them; -1: an error. */
static int is_one(PyFrameObject *frame)
{
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *name = PyUnicode_FromFormat("%U:%U", code->co_filename, code->co_qualname);
    const char *text = name == NULL ? NULL : PyUnicode_AsUTF8(name);
    int found = text == NULL ? -1 : strstr(text, part) != NULL;
    Py_XDECREF(name);
    Py_DECREF(code);
    return found;
}

static int trace(PyObject *self, PyFrameObject *frame, int what, PyObject *arg)
{
    if (what == PyTrace_CALL) {
        int ours = is_one(frame);
        return ours == 1 ? PyObject_SetAttrString((PyObject *)frame, "f_trace_opcodes", Py_True) : ours;
    }
    if (what == PyTrace_OPCODE) {
        seen++;
        if (left && --left == 0)
            PyErr_SetInterruptEx(number);
    }
    return 0;
}

static PyObject *arm(PyObject *module, PyObject *args)
{
    const char *wanted;
    if (!PyArg_ParseTuple(args, "ils", &number, &left, &wanted))
        return NULL;
    strncpy(part, wanted, sizeof part - 1);
    seen = 0;
    PyEval_SetTrace(trace, NULL);
    Py_RETURN_NONE;
}

static PyObject *disarm(PyObject *module, PyObject *none)
{
    PyEval_SetTrace(NULL, NULL);
    Py_RETURN_NONE;
}

static PyObject *count(PyObject *module, PyObject *none)
{
    return PyLong_FromLong(seen);
}

static void in_child(void)
{
    left = 0; /* what a handler that runs in a child may do is another matter: those that start one block signals */
}

static PyMethodDef methods[] = {
    {"arm", arm, METH_VARARGS, "arm(signal, n, part): trip it at the n-th instruction in functions whose file and name have this part."},
    {"disarm", disarm, METH_NOARGS, "Trip nothing any more."},
    {"count", count, METH_NOARGS, "How many instructions there were from `arm` to `disarm`."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "tripwire", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_tripwire(void)
{
    pthread_atfork(NULL, NULL, in_child);
    return PyModule_Create(&definition);
}
