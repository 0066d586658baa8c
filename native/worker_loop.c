/* A worker's loop over jobs of plain data. */

#include "core.h"
#include <semaphore.h>
#include <structmember.h>
#include <sys/ioctl.h>

typedef struct {
    PyObject_HEAD
    Py_buffer slot; /* of the flight recorder */
    sem_t *unclaimed, *published;
    double *marks;
    uint64_t *ends;
    unsigned char *outcomes, *payload, *payload_end;
    unsigned long long armed; /* 1 + id of the job that JobTimeout may be raised in */
    Py_ssize_t at;            /* position of the job that was taken last, among those that `run` was given */
    Py_ssize_t end;           /* where the results so far end */
    char open;                /* whether that job has no result yet */
    char over;                /* whether no more jobs may be claimed */
    char copy;                /* whether this is a child that a handler forked */
    char by_value;            /* whether what is defined in __main__ must not go by its name */
    int pipe, error_pipe;     /* that the output goes into, if it is relayed; else -1: see relayed_output.py */
    double short_seconds;     /* jobs no longer than this are mostly not looked after */
    uint64_t *output;         /* DIRTY, CAREFUL, LOOKED */
    uint64_t *reads;          /* how often the boss has begun or ended to read either pipe */
} Loop;

enum { DIRTY, CAREFUL, LOOKED }; /* as in recorder.py */

static PyObject *loop_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *slot;
    Py_ssize_t unclaimed, published, marks, ends, outcomes, payload, payload_size, output, reads;
    if (!PyArg_ParseTuple(args, "Onnnnnnnnn", &slot, &unclaimed, &published, &marks, &ends, &outcomes, &payload,
                          &payload_size, &output, &reads))
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Loop *self = (Loop *)alloc(type, 0);
    if (self == NULL) return NULL;
    if (PyObject_GetBuffer(slot, &self->slot, PyBUF_WRITABLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    unsigned char *start = self->slot.buf;
    self->unclaimed = (sem_t *)(start + unclaimed);
    self->published = (sem_t *)(start + published);
    self->marks = (double *)(start + marks);
    self->ends = (uint64_t *)(start + ends);
    self->outcomes = start + outcomes;
    self->payload = start + payload;
    self->payload_end = self->payload + payload_size;
    self->output = (uint64_t *)(start + output);
    self->reads = (uint64_t *)(start + reads);
    self->pipe = self->error_pipe = -1;
    if (payload + payload_size <= self->slot.len) return (PyObject *)self;
    Py_DECREF(self);
    return PyErr_Format(PyExc_ValueError, "a slot of %zd bytes is too small", self->slot.len);
}

static void loop_free(PyObject *object)
{
    Loop *self = (Loop *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->slot.obj != NULL) PyBuffer_Release(&self->slot);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* Whether something lies in a pipe, or was read from it since the last look, or just is (then the count is odd). */
static int was_written_to(Loop *self, int pipe, int which)
{
    int unread = 0;
    /* The pipe first, then the count: the boss counts before it reads, so if it emptied the pipe before our look at it,
       we see that it has counted. */
    if (ioctl(pipe, FIONREAD, &unread) != 0 || unread != 0) return 1;
    uint64_t reads = __atomic_load_n(&self->reads[which], __ATOMIC_ACQUIRE);
    return reads % 2 || reads != self->output[LOOKED + which];
}

/* Whether Python has to see to the output of the job that began then: as `RelayedOutput.job_ended` */
static int may_have_written(Loop *self, double began)
{
    if (self->pipe < 0) return 0;
    if (self->output[DIRTY]) return 1;
    if (!self->output[CAREFUL] && read_clock(CLOCK_MONOTONIC) - began <= self->short_seconds) return 0;
    if (was_written_to(self, self->pipe, 0) || was_written_to(self, self->error_pipe, 1)) return 1;
    if (self->output[CAREFUL]) self->output[CAREFUL]--;
    return 0;
}

static int names_main(const unsigned char *at, size_t size)
{
    return memmem(at, size, "__main__", 8) != NULL;
}

/* run(work, jobs, position, index, number) -> None, or what the handler returned for the job `at`, if it is not plain,
   or if the job may have written something

   Claims, runs and publishes jobs[position:]; the first of them is the `index`-th of the batch, and `number` is 1 + its
   id. What the handler raises is raised; the job `at` is `open` then, and `armed`. */
static PyObject *loop_run(PyObject *object, PyObject *args)
{
    Loop *self = (Loop *)object;
    PyObject *work, *jobs;
    Py_ssize_t position, index;
    unsigned long long number;
    if (!PyArg_ParseTuple(args, "OO!nnK", &work, &PyList_Type, &jobs, &position, &index, &number)) return NULL;
    for (; position < PyList_Size(jobs); position++, index++, number++) {
        if (sem_trywait(self->unclaimed) != 0) {
            self->over = 1;
            break;
        }
        self->at = position;
        self->open = 1;
        /* Claimed, then armed: a signal that comes in between finds no job, and is repeated by the boss. */
        self->armed = number;
        PyObject *value = PyObject_CallFunctionObjArgs(work, PyList_GetItem(jobs, position), NULL);
        if (value == NULL) return NULL;
        /* Signals are seen to here if the handler is not written in Python, and while the job is still armed. */
        if (PyErr_CheckSignals() < 0) {
            Py_DECREF(value);
            return NULL;
        }
        unsigned char *start = self->payload + self->end;
        int plain = !self->copy && !may_have_written(self, self->marks[index]);
        Py_ssize_t size = plain ? pack_result(start, self->payload_end, value) : -1;
        if (size < 0 || (self->by_value && names_main(start, size))) return value;
        /* From here to the next job no Python runs, so no signal handler does: none can raise between the result and
           its count. */
        self->armed = 0;
        Py_DECREF(value); /* plain data: no code runs */
        self->end += size;
        self->ends[index] = self->end;
        self->marks[index + 1] = read_clock(CLOCK_MONOTONIC);
        /* Releases all that was written above: whoever sees the count sees the result, its end and its mark. */
        sem_post(self->published);
        self->open = 0;
    }
    Py_RETURN_NONE;
}

static PyMethodDef loop_methods[] = {
    {"run", loop_run, METH_VARARGS, NULL},
    {NULL},
};

static PyMemberDef loop_members[] = {
    {"armed", T_ULONGLONG, offsetof(Loop, armed), 0, NULL},
    {"at", T_PYSSIZET, offsetof(Loop, at), READONLY, NULL},
    {"end", T_PYSSIZET, offsetof(Loop, end), 0, NULL},
    {"open", T_BOOL, offsetof(Loop, open), 0, NULL},
    {"over", T_BOOL, offsetof(Loop, over), 0, NULL},
    {"copy", T_BOOL, offsetof(Loop, copy), 0, NULL},
    {"by_value", T_BOOL, offsetof(Loop, by_value), 0, NULL},
    {"pipe", T_INT, offsetof(Loop, pipe), 0, NULL},
    {"error_pipe", T_INT, offsetof(Loop, error_pipe), 0, NULL},
    {"short_seconds", T_DOUBLE, offsetof(Loop, short_seconds), 0, NULL},
    {NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_free},
    {Py_tp_methods, loop_methods},
    {Py_tp_members, loop_members},
    {0},
};

PyType_Spec loop_spec = {"bossworker._core.Loop", sizeof(Loop), 0, Py_TPFLAGS_DEFAULT, loop_slots};
