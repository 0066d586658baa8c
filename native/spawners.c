/* Spawners: threads, each of which starts one command after the other, and sees it through.

   All that ends at once and well, writes nothing and leaves nothing, is done with here. Python hears of it later, of
   many at a time, and need not be waited for between the end of one and the start of the next. Whatever ends in another
   way is handed to Python as it lies there, not yet reaped; and what runs longer is taken over by Python, with all that
   may become of it.

   No spawner ever runs Python or takes the GIL, and of Python's it looks at nothing but the texts that a command is
   started with. All that spawners share with Python is looked at with the lock held, which is held for microseconds. A
   process is reaped with it held, too: so whoever finds a command with its spawner may rely on its pid. */

#include "starting.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <structmember.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { QUEUED, STARTING, RUNNING, ENDED };             /* states of a cell, as in cells.py */
enum { STATE, PID, STARTED, STATUS, OUTPUT, TOOK, WORDS }; /* its words */
enum { STACK_SIZE = 1 << 16 };                         /* bytes of a spawner; hardly any is used */

typedef struct {
    int out, err;
} Capture;

typedef struct Command {
    Start start; /* first: it is freed by its address */
    struct Command *next;
    long long id;
    int64_t *cell;
    Capture capture;
    pid_t pid;                           /* -1: no process could be made */
    int error;                           /* why */
    int alone;                           /* whether nothing else has changed while it was to be made */
    int well;                            /* whether nothing is left to be seen to */
    double started_at, started, seconds; /* Unix, monotonic, until its end */
} Command;

typedef struct {
    Command *first, **end;
    Py_ssize_t length;
} Queue;

typedef struct Spawner {
    struct Shared *shared;
    struct Spawner *next;
    Command *command; /* that runs in it, and that Python has not taken over */
    Stack stack;      /* of the child that is being started */
} Spawner;

typedef struct Shared {
    pthread_mutex_t lock;
    pthread_cond_t may_begin, none_starts;
    Queue queue, ended;
    Spawner *spawners;
    Capture *free; /* that no command has */
    Py_ssize_t free_count;
    long long *begun; /* ids that Python has not heard of */
    Py_ssize_t begun_count, begun_room;
    Py_ssize_t slots, low;  /* commands at once; so few in the queue that Python is to know of each end */
    Py_ssize_t busy;        /* commands that run, or have ended and are not reaped */
    Py_ssize_t starting;    /* of these: whose processes are being made */
    long long changes;      /* so far, of what may decide whether one can be made */
    Py_ssize_t idle;        /* spawners that have no command */
    Py_ssize_t coming;      /* those that are about to be idle: their commands were taken over, and are reaped */
    int held;               /* not 0: nothing may begin */
    int exhausted;          /* no process was to be had; until one has ended */
    int told;               /* whether Python knows that there is something to collect */
    int watched;            /* whether Python comes by itself, since it knows of one that runs */
    int event, children;    /* descriptors: by which it is told; the list of those that came to us as orphans */
    sigset_t blocked;       /* by commands */
} Shared;

typedef struct {
    PyObject_HEAD
    Shared *shared;
    Py_buffer cells;
} Spawners;

static void append(Queue *queue, Command *command)
{
    command->next = NULL;
    *queue->end = command;
    queue->end = &command->next;
    queue->length++;
}

static Command *take_first(Queue *queue)
{
    Command *command = queue->first;
    queue->first = command->next;
    if (queue->first == NULL) queue->end = &queue->first;
    queue->length--;
    return command;
}

static void put_first(Queue *queue, Command *command)
{
    command->next = queue->first;
    if (queue->first == NULL) queue->end = &command->next;
    queue->first = command;
    queue->length++;
}

static void empty(Queue *queue)
{
    *queue = (Queue){NULL, &queue->first, 0};
}

static void move_all(Queue *from, Queue *to)
{
    empty(to);
    while (from->first) append(to, take_first(from));
}

static double read_clock(clockid_t clock)
{
    struct timespec time; /* as Python's: rounded in the same way */
    clock_gettime(clock, &time);
    return (double)((int64_t)time.tv_sec * 1000000000 + time.tv_nsec) / 1e9;
}

static int64_t micro(double seconds)
{
    return (int64_t)(seconds * 1e6);
}

/* -- in a spawner, with the lock held ---------------------------------------------------------------------------- */

static Py_ssize_t may_begin(const Shared *shared)
{
    if (shared->held || shared->exhausted) return 0;
    Py_ssize_t most = shared->slots - shared->busy;
    if (most > shared->free_count) most = shared->free_count;
    return most < shared->queue.length ? most : shared->queue.length;
}

static void note_begun(Shared *shared, long long id)
{
    if (shared->begun_count == shared->begun_room) {
        Py_ssize_t room = 2 * shared->begun_room + 64;
        long long *more = realloc(shared->begun, room * sizeof *more);
        if (more == NULL) return; /* its end will be told all the same */
        shared->begun = more;
        shared->begun_room = room;
    }
    shared->begun[shared->begun_count++] = id;
}

/* It collects what there is. */
static void tell(Shared *shared)
{
    static const uint64_t one = 1;
    if (!shared->told) shared->told = write(shared->event, &one, sizeof one) > 0;
}

static void *be_spawner(void *spawner);

static int add_spawner(Shared *shared)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    Spawner *spawner = calloc(1, sizeof *spawner);
    if (spawner == NULL) return 0;
    spawner->shared = shared;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&thread, &attributes, be_spawner, spawner);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failed) return free(spawner), errno = failed, 0;
    spawner->next = shared->spawners;
    shared->spawners = spawner;
    shared->idle++;
    return 1;
}

/* There may be more that may begin. Where no spawner is free for it, another is added, once the one before has made a
   process: so where processes are short, spawners do not take those that commands need. Nor is one added for one that is
   just coming back. One that waits for what does not end is not free either. */
static void go_on(Shared *shared)
{
    Py_ssize_t count = may_begin(shared);
    if (count > 0 && shared->idle == 0 && shared->coming <= 0 && shared->starting == 0) add_spawner(shared);
    while (count-- > 0) pthread_cond_signal(&shared->may_begin);
}

static int is_empty(int file)
{
    return lseek(file, 0, SEEK_END) == 0;
}

/* Of a process that has ended and is not reaped: what it has left behind has come to us before that could be seen. */
static int is_all(Shared *shared, const Command *command, const siginfo_t *end)
{
    char listed;
    return end->si_code == CLD_EXITED && end->si_status == 0 && is_empty(command->capture.out) &&
           is_empty(command->capture.err) && pread(shared->children, &listed, 1, 0) == 0;
}

static void end_well(Shared *shared, Command *command)
{
    int64_t *cell = command->cell;
    cell[STATUS] = cell[OUTPUT] = 0;
    cell[TOOK] = micro(command->seconds);
    __atomic_store_n(&cell[STATE], ENDED, __ATOMIC_RELEASE);
    while (waitpid(command->pid, NULL, 0) < 0 && errno == EINTR);
    command->well = 1;
    shared->busy--;
    shared->changes++;
    shared->free[shared->free_count++] = command->capture;
}

static void hand_in(Shared *shared, Command *command)
{
    append(&shared->ended, command);
    if (!command->well || shared->queue.length < shared->low) tell(shared);
}

/* No process could be made of it. When one that runs has ended, one is to be had. Two that are made at once may both be
   refused the last one there is (the kernel counts first, and looks then), and another may have been reaped just after:
   so one that was not alone is tried again. */
static void fail(Shared *shared, Command *command)
{
    shared->busy--;
    shared->exhausted = command->error == EAGAIN && shared->busy > 0;
    if (shared->exhausted || (command->error == EAGAIN && !command->alone)) {
        shared->free[shared->free_count++] = command->capture;
        put_first(&shared->queue, command);
    } else {
        hand_in(shared, command);
    }
}

static int start(Spawner *spawner, Command *command)
{
    Shared *shared = spawner->shared;
    int64_t *cell = command->cell;
    shared->busy++;
    command->alone = shared->starting++ == 0;
    long long change = ++shared->changes;
    command->capture = shared->free[--shared->free_count];
    command->start.stdio[1] = command->capture.out;
    command->start.stdio[2] = command->capture.err;
    command->start.blocked = shared->blocked;
    command->started_at = read_clock(CLOCK_REALTIME);
    command->started = read_clock(CLOCK_MONOTONIC);
    cell[STARTED] = micro(command->started_at);
    __atomic_store_n(&cell[STATE], STARTING, __ATOMIC_RELEASE);

    pthread_mutex_unlock(&shared->lock);
    command->pid = begin(be_program, &command->start, &spawner->stack);
    command->error = command->pid < 0 ? errno : 0;
    pthread_mutex_lock(&shared->lock);

    command->alone = command->alone && change == shared->changes;
    cell[PID] = command->pid < 0 ? 0 : command->pid;
    __atomic_store_n(&cell[STATE], command->pid < 0 ? QUEUED : RUNNING, __ATOMIC_RELEASE);
    if (--shared->starting == 0) pthread_cond_broadcast(&shared->none_starts);
    if (command->pid > 0) go_on(shared);
    return command->pid > 0;
}

static void see_through(Spawner *spawner, Command *command)
{
    Shared *shared = spawner->shared;
    if (!start(spawner, command)) {
        fail(shared, command);
        return;
    }
    note_begun(shared, command->id);
    if (!shared->watched) tell(shared);
    spawner->command = command;
    pid_t pid = command->pid;
    siginfo_t end = {0};

    pthread_mutex_unlock(&shared->lock);
    while (waitid(P_PID, pid, &end, WEXITED | WNOWAIT) < 0 && errno == EINTR);
    double now = read_clock(CLOCK_MONOTONIC);
    pthread_mutex_lock(&shared->lock);

    if (spawner->command == NULL) { /* Python sees to it, or has done so: it may be freed */
        shared->coming--;
        return;
    }
    spawner->command = NULL;
    command->seconds = now - command->started;
    if (is_all(shared, command, &end)) end_well(shared, command);
    hand_in(shared, command);
    shared->exhausted = 0;
}

static void *be_spawner(void *given)
{
    Spawner *spawner = given;
    Shared *shared = spawner->shared;
    pthread_mutex_lock(&shared->lock);
    for (;;) {
        while (!may_begin(shared)) pthread_cond_wait(&shared->may_begin, &shared->lock);
        shared->idle--;
        see_through(spawner, take_first(&shared->queue));
        shared->idle++;
    }
    return NULL;
}

/* -- in Python, with the lock held ------------------------------------------------------------------------------- */

/* Nothing may begin until they go on, and nothing is just about to. */
static void hold_all(Shared *shared)
{
    shared->held++;
    while (shared->starting) pthread_cond_wait(&shared->none_starts, &shared->lock);
}

static void release_all(Shared *shared)
{
    shared->held--;
    go_on(shared);
}

/* -- what Python calls ------------------------------------------------------------------------------------------- */

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

/* release(whether its spawner comes back now): Python has seen to a command, and another may begin. The spawner of one
   that was taken over comes back when that is reaped. */
static PyObject *spawners_release(PyObject *object, PyObject *comes)
{
    Shared *shared = lock(object);
    shared->busy--;
    shared->changes++;
    shared->coming += PyObject_IsTrue(comes);
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
    {"add", spawners_add, METH_VARARGS, NULL},          {"lend", spawners_lend, METH_VARARGS, NULL},
    {"release", spawners_release, METH_O, NULL},        {"hold", spawners_hold, METH_O, NULL},
    {"withdraw", spawners_withdraw, METH_VARARGS, NULL},      {"take_over", spawners_take_over, METH_O, NULL},
    {"collect", spawners_collect, METH_NOARGS, NULL},   {NULL},
};

static PyType_Slot spawners_slots[] = {
    {Py_tp_new, spawners_new},
    {Py_tp_dealloc, spawners_free},
    {Py_tp_methods, spawners_methods},
    {0},
};

PyType_Spec spawners_spec = {"bossworker._core.Spawners", sizeof(Spawners), 0, Py_TPFLAGS_DEFAULT, spawners_slots};
