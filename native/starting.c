/* The start of programs. */

#include "core.h"
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    char **argv, **files, **environment;
    const char *folder;
    int stdio[3];
    sigset_t handled, blocked;
    volatile int error, step; /* why it was not executed, and what had been begun */
} Start;

enum { SETTING_UP, CHANGING_FOLDER, EXECUTING }; /* as in starter.py */

static int close_others(void)
{
#ifdef SYS_close_range
    return (int)syscall(SYS_close_range, 3, ~0U, 0);
#else
    return -1;
#endif
}

static void set_up(Start *start)
{
    struct sigaction by_default = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        if (sigismember(&start->handled, number) == 1) sigaction(number, &by_default, NULL);
    for (int fd = 0; fd < 3; fd++)
        if (dup2(start->stdio[fd], fd) < 0) return;
    start->step = CHANGING_FOLDER;
    if (chdir(start->folder) < 0) return;
    start->step = SETTING_UP;
    if (setsid() < 0 || close_others() < 0) return;
    start->step = EXECUTING;
}

/* The child, which has our memory and our stack until it executes, while we wait: it allocates nothing, and changes
   nothing of ours but the last two fields. No handler of ours may run in it: all signals are blocked until they have
   their defaults, and whatever has come meanwhile ends it then. */
static __attribute__((noinline, noreturn)) void be_program(Start *start)
{
    start->step = SETTING_UP;
    set_up(start);
    int error = start->step == EXECUTING ? ENOENT : errno;
    if (start->step == EXECUTING) pthread_sigmask(SIG_SETMASK, &start->blocked, NULL);
    for (char **file = start->files; *file && start->step == EXECUTING; file++) {
        execve(*file, start->argv, start->environment);
        if (error == ENOENT || error == ENOTDIR) error = errno; /* what else is wrong with one says more */
    }
    start->error = error;
    _exit(255);
}

static __attribute__((noinline)) pid_t begin(Start *start)
{
    pid_t pid = vfork();
    if (pid == 0) be_program(start);
    return pid;
}

static pid_t begin_unheard(Start *start)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &start->blocked);
    pid_t pid = begin(start);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &start->blocked, NULL);
    errno = error;
    return pid;
}

static void reap(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR);
}

/* The texts of a list, from `at` on, and a NULL behind them; what they are in is added to `held`. Where that ends; or
   NULL, with an exception. No code of Python's can run, so the list stays as long as it is. */
static char **lay_out(PyObject *list, char **at, PyObject *held)
{
    for (Py_ssize_t n = 0; n < PyList_Size(list); n++) {
        PyObject *text = PyList_GetItem(list, n), *bytes;
        if (!PyUnicode_CheckExact(text) && !PyBytes_CheckExact(text))
            return PyErr_SetString(PyExc_TypeError, "it is neither str nor bytes"), NULL;
        if (!PyUnicode_FSConverter(text, &bytes)) return NULL;
        *at++ = PyBytes_AsString(bytes);
        int failed = PyList_Append(held, bytes);
        Py_DECREF(bytes);
        if (failed) return NULL;
    }
    *at++ = NULL;
    return at;
}

static __attribute__((noinline, noreturn)) void try_child(volatile int *works)
{
    *works = close_others() == 0;
    _exit(0);
}

/* Whether a child has our memory, which not all that looks like Linux gives it, and can close descriptors. */
static __attribute__((noinline)) int can_start(void)
{
    volatile int works = 0;
    pid_t pid = vfork();
    if (pid == 0) try_child(&works);
    if (pid > 0) reap(pid);
    return works;
}

/* prepare_starts() -> what `start` takes last; None: here it does not work

   To be asked by a process with one thread that sets no handler any more: its dispositions are looked at here, and not
   at each start. */
PyObject *core_prepare_starts(PyObject *module, PyObject *unused)
{
    struct sigaction now;
    sigset_t handled;
    if (!can_start()) Py_RETURN_NONE;
    sigemptyset(&handled);
    for (int number = 1; number < NSIG; number++)
        if (sigaction(number, NULL, &now) == 0 && now.sa_handler != SIG_DFL) sigaddset(&handled, number);
    return PyBytes_FromStringAndSize((char *)&handled, sizeof handled);
}

/* start(argv, files, environment, more, folder, (in, out, err), prepared) -> pid, or (errno, step): it was not executed

   As `start` of system/program.py, to which this is what takes the time. `more` is environment, too. */
PyObject *core_start(PyObject *module, PyObject *args)
{
    PyObject *argv, *files, *environment, *more, *folder, *prepared;
    Start start = {.error = 0};
    if (!PyArg_ParseTuple(args, "O!O!O!O!O&(iii)S", &PyList_Type, &argv, &PyList_Type, &files, &PyList_Type,
                          &environment, &PyList_Type, &more, PyUnicode_FSConverter, &folder, &start.stdio[0],
                          &start.stdio[1], &start.stdio[2], &prepared))
        return NULL;
    Py_ssize_t count = PyList_Size(argv) + PyList_Size(files) + PyList_Size(environment) + PyList_Size(more) + 4;
    PyObject *held = PyList_New(0), *told = NULL;
    char **at = start.argv = PyMem_Calloc(count, sizeof(char *));
    if (held == NULL || at == NULL || PyBytes_Size(prepared) != sizeof start.handled) goto out;
    if ((at = start.files = lay_out(argv, at, held)) == NULL) goto out;
    if ((at = start.environment = lay_out(files, at, held)) == NULL) goto out;
    if ((at = lay_out(environment, at, held)) == NULL || lay_out(more, at - 1, held) == NULL) goto out;
    start.folder = PyBytes_AsString(folder);
    memcpy(&start.handled, PyBytes_AsString(prepared), sizeof start.handled);
    pid_t pid = begin_unheard(&start);
    if (pid < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    } else if (start.error) {
        reap(pid);
        told = Py_BuildValue("(ii)", start.error, start.step);
    } else {
        told = PyLong_FromLong(pid);
    }
out:
    if (told == NULL && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "it was not prepared, or there is no memory");
    PyMem_Free(start.argv);
    Py_XDECREF(held);
    Py_DECREF(folder);
    return told;
}
