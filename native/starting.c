/* The start of programs. */

#include "starting.h"
#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A child has our memory until it executes its program, as after vfork; but we go on meanwhile. So it has a stack of
   its own, and changes nothing else of ours: not even errno, which is why it calls the kernel by `ask`, and nothing of
   libc.

   Shown on x86-64 with gcc's -O0, -O2, -O3, -Os and -flto, with stack protectors, probes and CET, with UBSan and ASan:
   100,000 starts each while signals storm in; with clang's -O0 and -O3, 20,000. At most 200 bytes of that stack are
   used. aarch64 was compiled and read, not run. valgrind does not know such a clone, and ends us. */
enum { SETTING_UP, CHANGING_FOLDER, EXECUTING }; /* as in starter.py */
enum { NOT_FOUND = 127, NOT_EXECUTABLE = 126 };  /* exit codes, as in program.py */

#if defined(__linux__) && defined(__x86_64__) && defined(__LP64__)
#define CAN_ASK 1
static inline long ask(long number, long first, long second, long third, long fourth)
{
    register long last __asm__("r10") = fourth;
    long answer;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(first), "S"(second), "d"(third), "r"(last)
                     : "rcx", "r11", "memory");
    return answer;
}
#elif defined(__linux__) && defined(__aarch64__)
#define CAN_ASK 1
static inline long ask(long number, long first, long second, long third, long fourth)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = first, x1 __asm__("x1") = second;
    register long x2 __asm__("x2") = third, x3 __asm__("x3") = fourth;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#else
#define CAN_ASK 0
#define ask(number, first, second, third, fourth) (-ENOSYS)
#endif

#ifndef SYS_close_range
#define SYS_close_range (-1)
#endif
#define KERNEL_SIGNALS 8 /* bytes of a set of signals, as the kernel has it */

static inline long set_up(Start *start)
{
    static const long by_default[8] = {0}; /* the kernel's struct sigaction, and more */
    long failed = 0;
    for (int number = 1; number < NSIG; number++)
        if (start->handled[number])
            ask(SYS_rt_sigaction, number, (long)by_default, 0, KERNEL_SIGNALS);
    for (int fd = 0; fd < 3 && failed >= 0; fd++) failed = ask(SYS_dup3, start->stdio[fd], fd, 0, 0);
    if (failed < 0) return failed;
    start->step = CHANGING_FOLDER;
    if ((failed = ask(SYS_chdir, (long)start->folder, 0, 0, 0)) < 0) return failed;
    start->step = SETTING_UP;
    if ((failed = ask(SYS_setsid, 0, 0, 0, 0)) < 0) return failed;
    return ask(SYS_close_range, 3, ~0U, 0, 0);
}

/* No handler of ours may run in it: all signals are blocked until they have their defaults, and whatever has come
   meanwhile ends it then. */
int be_program(void *given)
{
    Start *start = given;
    long error = set_up(start);
    if (error == 0) {
        start->step = EXECUTING;
        error = -ENOENT;
        ask(SYS_rt_sigprocmask, SIG_SETMASK, (long)&start->blocked, 0, KERNEL_SIGNALS);
        for (char **file = start->files; *file; file++) {
            long failed = ask(SYS_execve, (long)*file, (long)start->argv, (long)start->environment, 0);
            if (error == -ENOENT || error == -ENOTDIR) error = failed; /* what else is wrong with one says more */
        }
    }
    start->error = (int)error;
    int missing = start->step == EXECUTING && (error == -ENOENT || error == -ENOTDIR);
    ask(SYS_exit_group, missing ? NOT_FOUND : NOT_EXECUTABLE, 0, 0, 0);
    return 0;
}

/* With all signals blocked. */
pid_t begin(int (*call)(void *), Start *start, Stack *stack)
{
    start->busy = 1;
    pid_t pid = clone(call, stack + 1, CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, start, NULL, NULL,
                      (void *)&start->busy);
    if (pid < 0) start->busy = 0;
    return pid;
}

static pid_t begin_unheard(int (*call)(void *), LoneStart *lone)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &lone->start.blocked);
    pid_t pid = begin(call, &lone->start, &lone->stack);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &lone->start.blocked, NULL);
    errno = error;
    return pid;
}

/* Before anything else of it is looked at, or freed. (The kernel stores it when it is through with our memory.) */
int is_busy(Start *start)
{
    return __atomic_load_n(&start->busy, __ATOMIC_ACQUIRE) != 0;
}

static int exit_status(pid_t pid)
{
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR);
    return status;
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

static int try_child(void *given)
{
    static char *const argv[] = {"sh", "-c", ":", NULL}, *const environment[] = {NULL};
    ((Start *)given)->error = ask(SYS_close_range, 3, ~0U, 0, 0) == 0;
    ask(SYS_execve, (long)"/bin/sh", (long)argv, (long)environment, 0);
    ask(SYS_exit_group, NOT_FOUND, 0, 0, 0);
    return 0;
}

void give_up(Start *start)
{
    PyMem_Free(start->argv);
    Py_XDECREF(start->held);
    PyMem_Free(start);
}

/* prepare_starts() -> what `start` takes last; None: here it does not work

   To be asked by a process with one thread that sets no handler any more: its dispositions are looked at here, and not
   at each start. It does not work where a child does not have our memory (not all that looks like Linux gives it),
   cannot close descriptors, or executes a program without our being told: gVisor tells of ends alone, so nothing of a
   start would ever be freed. So one program is executed here. */
PyObject *core_prepare_starts(PyObject *module, PyObject *unused)
{
    struct sigaction now;
    char handled[NSIG] = {0};
    LoneStart *lone = PyMem_Calloc(1, sizeof(LoneStart));
    if (lone == NULL) return PyErr_NoMemory();
    Start *start = &lone->start;
    pid_t pid = CAN_ASK ? begin_unheard(try_child, lone) : -1;
    int works = pid > 0 && exit_status(pid) == 0 && start->error && !is_busy(start);
    if (!works) Py_RETURN_NONE; /* and that memory is given up, whoever has it */
    give_up(start);
    for (int number = 1; number < NSIG; number++)
        handled[number] = sigaction(number, NULL, &now) == 0 && now.sa_handler != SIG_DFL;
    return PyBytes_FromStringAndSize(handled, sizeof handled);
}

#define START "bossworker._core.Start"

/* What a child may still use is not freed; if it never ends, never. */
static void forget_start(PyObject *capsule)
{
    Start *start = PyCapsule_GetPointer(capsule, START);
    if (!is_busy(start)) give_up(start);
}

PyObject *start_capsule(Start *start)
{
    return PyCapsule_New(start, START, forget_start);
}

/* From what `start` is given. 0: with an exception. */
int fill_start(Start *start, PyObject *args)
{
    PyObject *argv, *files, *environment, *more, *folder, *prepared;
    if (!PyArg_ParseTuple(args, "O!O!O!O!O&(iii)S", &PyList_Type, &argv, &PyList_Type, &files, &PyList_Type,
                          &environment, &PyList_Type, &more, PyUnicode_FSConverter, &folder, &start->stdio[0],
                          &start->stdio[1], &start->stdio[2], &prepared))
        return 0;
    Py_ssize_t count = PyList_Size(argv) + PyList_Size(files) + PyList_Size(environment) + PyList_Size(more) + 4;
    int laid = -1;
    char **at = start->argv = PyMem_Calloc(count, sizeof(char *));
    start->held = PyList_New(0);
    if (at == NULL || start->held == NULL || PyList_Append(start->held, folder)) goto out;
    if (PyBytes_Size(prepared) != sizeof start->handled) goto out;
    memcpy(start->handled, PyBytes_AsString(prepared), sizeof start->handled);
    start->folder = PyBytes_AsString(folder);
    if ((at = start->files = lay_out(argv, at, start->held)) == NULL) goto out;
    if ((at = start->environment = lay_out(files, at, start->held)) == NULL) goto out;
    if ((at = lay_out(environment, at, start->held)) == NULL) goto out;
    if (lay_out(more, at - 1, start->held) != NULL) laid = 0;
out:
    Py_DECREF(folder);
    if (laid && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "it was not prepared, or there is no memory");
    return !laid;
}

/* start(argv, files, environment, more, folder, (in, out, err), prepared) -> pid, and what `look_at_start` takes

   As `start` of system/program.py, to which this is what takes the time; but that does not wait until the program is
   executed. `more` is environment, too. */
PyObject *core_start(PyObject *module, PyObject *args)
{
    LoneStart *lone = PyMem_Calloc(1, sizeof(LoneStart));
    PyObject *capsule = lone == NULL ? PyErr_NoMemory() : start_capsule(&lone->start);
    if (capsule == NULL) return PyMem_Free(lone), NULL;
    pid_t pid = fill_start(&lone->start, args) ? begin_unheard(be_program, lone) : -1;
    if (pid > 0) return Py_BuildValue("(iN)", (int)pid, capsule);
    if (!PyErr_Occurred()) PyErr_SetFromErrno(PyExc_OSError);
    Py_DECREF(capsule);
    return NULL;
}

/* look_at_start(capsule) -> None: it is still to execute; or (errno, step): it did not, if errno is not 0 */
PyObject *core_look_at_start(PyObject *module, PyObject *capsule)
{
    Start *start = PyCapsule_GetPointer(capsule, START);
    if (start == NULL) return NULL;
    if (is_busy(start)) Py_RETURN_NONE;
    return Py_BuildValue("(ii)", -start->error, start->step);
}
