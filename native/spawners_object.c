/* What Python has of spawners: see spawners.c, and threaded_spawning.py. */

#include "spawners.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    Shared *shared;
    Py_buffer cells;
} Spawners;

static Shared *lock(PyObject *self)
{
    Shared *shared = ((Spawners *)self)->shared;
    pthread_mutex_lock(&shared->lock);
    return shared;
}

static PyObject *unlock(Shared *shared)
{
    pthread_mutex_unlock(&shared->lock);
    Py_RETURN_NONE;
}

static PyObject *spawners_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *cells;
    Py_ssize_t slots, low;
    int event, children;
    if (!PyArg_ParseTuple(args, "Onnii", &cells, &slots, &low, &event, &children)) return NULL;
    Spawners *self = (Spawners *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL || PyObject_GetBuffer(cells, &self->cells, PyBUF_WRITABLE) < 0) goto failed;
    Shared *shared = self->shared = calloc(1, sizeof *shared);
    if (shared == NULL || (shared->free = calloc(slots, sizeof *shared->free)) == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    pthread_mutex_init(&shared->lock, NULL);
    pthread_cond_init(&shared->may_begin, NULL);
    pthread_cond_init(&shared->none_starts, NULL);
    empty(&shared->queue);
    empty(&shared->ended);
    shared->slots = slots;
    shared->low = low;
    shared->event = event;
    shared->children = children;
    pthread_sigmask(SIG_BLOCK, NULL, &shared->blocked);
    if (add_spawner(shared)) return (PyObject *)self;
    PyErr_SetFromErrno(PyExc_OSError);
failed:
    Py_XDECREF((PyObject *)self);
    return NULL;
}

/* Its spawners may still be at work: what is theirs stays. */
static void spawners_free(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* add(id, cell, what `start` takes): to the end of the queue */
static PyObject *spawners_add(PyObject *object, PyObject *args)
{
    Spawners *self = (Spawners *)object;
    PyObject *told;
    long long id;
    Py_ssize_t cell;
    if (!PyArg_ParseTuple(args, "LnO!", &id, &cell, &PyTuple_Type, &told)) return NULL;
    if (cell < 0 || (cell + 1) * WORDS * (Py_ssize_t)sizeof(int64_t) > self->cells.len)
        return PyErr_Format(PyExc_IndexError, "there is no cell %zd", cell);
    Command *command = PyMem_Calloc(1, sizeof(Command));
    if (command == NULL) return PyErr_NoMemory();
    if (!fill_start(&command->start, told)) return give_up(&command->start), NULL;
    command->id = id;
    command->cell = (int64_t *)self->cells.buf + cell * WORDS;
    Shared *shared = lock(object);
    append(&shared->queue, command);
    go_on(shared);
    return unlock(shared);
}

/* lend(out, err): two files that commands may write into, one after the other */
static PyObject *spawners_lend(PyObject *object, PyObject *args)
{
    Capture capture;
    if (!PyArg_ParseTuple(args, "ii", &capture.out, &capture.err)) return NULL;
    Shared *shared = lock(object);
    int fits = shared->free_count < shared->slots;
    if (fits) shared->free[shared->free_count++] = capture;
    go_on(shared);
    PyObject *done = unlock(shared);
    return fits ? done : (Py_DECREF(done), PyErr_Format(PyExc_ValueError, "there are enough"));
}

/* release(whether it has been given up, and may never end): Python has seen to a command, and another may begin */
static PyObject *spawners_release(PyObject *object, PyObject *given_up)
{
    Shared *shared = lock(object);
    shared->busy--;
    shared->changes++;
    shared->stuck += PyObject_IsTrue(given_up);
    shared->exhausted = 0;
    go_on(shared);
    return unlock(shared);
}

/* hold(whether nothing may begin for now): what is about to has begun when this returns */
static PyObject *spawners_hold(PyObject *object, PyObject *holds)
{
    Shared *shared = lock(object);
    if (PyObject_IsTrue(holds))
        hold_all(shared);
    else
        release_all(shared);
    return unlock(shared);
}

/* withdraw(ids) -> those of them that have not begun, and will not */
static PyObject *spawners_withdraw(PyObject *object, PyObject *args)
{
    PyObject *ids, *found;
    if (!PyArg_ParseTuple(args, "O!", &PySet_Type, &ids) || (found = PyList_New(0)) == NULL) return NULL;
    Queue all, withdrawn;
    empty(&withdrawn);
    Shared *shared = lock(object);
    move_all(&shared->queue, &all);
    while (all.first) {
        Command *command = take_first(&all);
        PyObject *id = PyLong_FromLongLong(command->id);
        append(id != NULL && PySet_Contains(ids, id) > 0 ? &withdrawn : &shared->queue, command);
        Py_XDECREF(id);
    }
    Py_DECREF(unlock(shared));
    while (withdrawn.first) {
        Command *command = take_first(&withdrawn);
        PyObject *id = PyLong_FromLongLong(command->id);
        if (id != NULL) PyList_Append(found, id);
        Py_XDECREF(id);
        give_up(&command->start);
    }
    return found;
}

/* What Python needs to see to a command; it has the process, if there is one, and the capture from then on. */
static PyObject *describe(Command *command)
{
    long long id = command->id;
    Capture capture = command->capture;
    PyObject *capsule = start_capsule(&command->start);
    if (capsule == NULL) return NULL;
    return Py_BuildValue("(LiiddiN)", id, (int)command->pid, command->error, command->started_at, command->started,
                         capture.out, capsule);
}

static PyObject *tell_end(Command *command)
{
    if (!command->well) return describe(command);
    PyObject *told = Py_BuildValue("(Ldd)", command->id, command->seconds, command->started_at);
    give_up(&command->start);
    return told;
}

static PyObject *tell_each(Queue *queue, PyObject *(*tell_one)(Command *))
{
    PyObject *all = PyList_New(0);
    while (queue->first) {
        PyObject *one = tell_one(take_first(queue));
        if (all == NULL || one == NULL || PyList_Append(all, one)) Py_CLEAR(all);
        Py_XDECREF(one);
    }
    return all;
}

/* take_over(started) -> those that have begun by then (monotonic seconds), and run: see `describe` */
static PyObject *spawners_take_over(PyObject *object, PyObject *started)
{
    double last = PyFloat_AsDouble(started);
    if (PyErr_Occurred()) return NULL;
    Queue taken;
    empty(&taken);
    Shared *shared = lock(object);
    for (Spawner *spawner = shared->spawners; spawner; spawner = spawner->next)
        if (spawner->command && spawner->command->started <= last) {
            append(&taken, spawner->command);
            spawner->command = NULL;
        }
    Py_DECREF(unlock(shared));
    return tell_each(&taken, describe);
}

/* collect() -> the ids of those that have begun; those that have ended, in the order of their ends: (id, seconds,
   started_at) if well, else as `describe` has it; when the oldest of those that are not taken over began, or 0.0

   If no process or no spawner was to be had before, there may be one now: those who had them need not be ours. */
static PyObject *spawners_collect(PyObject *object, PyObject *unused)
{
    uint64_t count;
    double oldest = 0.0;
    Queue ended;
    Shared *shared = lock(object);
    if (shared->told && read(shared->event, &count, sizeof count) > 0) shared->told = 0;
    move_all(&shared->ended, &ended);
    long long *begun = shared->begun;
    Py_ssize_t begun_count = shared->begun_count;
    shared->begun = NULL;
    shared->begun_count = shared->begun_room = 0;
    for (Spawner *spawner = shared->spawners; spawner; spawner = spawner->next) {
        const Command *command = spawner->command;
        if (command && (oldest == 0.0 || command->started < oldest)) oldest = command->started;
    }
    shared->watched = oldest > 0.0;
    shared->exhausted = 0;
    go_on(shared);
    Py_DECREF(unlock(shared));

    PyObject *ids = PyList_New(0), *ends = tell_each(&ended, tell_end);
    for (Py_ssize_t n = 0; n < begun_count && ids != NULL; n++) {
        PyObject *one = Py_BuildValue("(L)", begun[n]);
        if (one == NULL || PyList_Append(ids, one)) Py_CLEAR(ids);
        Py_XDECREF(one);
    }
    free(begun);
    if (ids && ends) return Py_BuildValue("(NNd)", ids, ends, oldest);
    Py_XDECREF(ids);
    Py_XDECREF(ends);
    return NULL;
}

static PyMethodDef spawners_methods[] = {
    {"add", spawners_add, METH_VARARGS, NULL},
    {"lend", spawners_lend, METH_VARARGS, NULL},
    {"release", spawners_release, METH_O, NULL},
    {"hold", spawners_hold, METH_O, NULL},
    {"withdraw", spawners_withdraw, METH_VARARGS, NULL},
    {"take_over", spawners_take_over, METH_O, NULL},
    {"collect", spawners_collect, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot spawners_slots[] = {
    {Py_tp_new, spawners_new},
    {Py_tp_dealloc, spawners_free},
    {Py_tp_methods, spawners_methods},
    {0},
};

PyType_Spec spawners_spec = {"bossworker._core.Spawners", sizeof(Spawners), 0, Py_TPFLAGS_DEFAULT, spawners_slots};
