/* What the files of the core have in common: each function of the module, and what one file needs of another. */

#ifndef BOSSWORKER_CORE_H
#define BOSSWORKER_CORE_H

#define _GNU_SOURCE /* memmem, clone */
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define MOST_MEMO 100 /* objects of one result that pickle would number; beyond, Python does it */

/* As Python's clocks: rounded in the same way. */
static inline double read_clock(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)((int64_t)time.tv_sec * 1000000000 + time.tv_nsec) / 1e9;
}

/* packing.c */
extern PyObject *ERROR_KEY;
Py_ssize_t pack_result(unsigned char *at, unsigned char *end, PyObject *value);
PyObject *core_pack_result(PyObject *module, PyObject *value);
PyObject *core_encode_blocks(PyObject *module, PyObject *args);

/* loading.c */
PyObject *core_load_block(PyObject *module, PyObject *data);
PyObject *core_load_results(PyObject *module, PyObject *args);
PyObject *core_attach(PyObject *module, PyObject *args);
PyObject *core_track(PyObject *module, PyObject *result);

/* worker_loop.c */
extern PyType_Spec loop_spec;

/* starting.c */
PyObject *core_prepare_starts(PyObject *module, PyObject *unused);
PyObject *core_start(PyObject *module, PyObject *args);
PyObject *core_look_at_start(PyObject *module, PyObject *capsule);


/* spawners.c */
extern PyType_Spec spawners_spec;

#endif
