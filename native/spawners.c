/* Spawners: threads, each of which starts one command after the other, and sees it through.

   All that ends at once and well, writes nothing and leaves nothing, is done with here. Python hears of it later, of
   many at a time, and need not be waited for between the end of one and the start of the next. Whatever ends in another
   way is handed to Python as it lies there, not yet reaped; and what runs longer is taken over by Python, with all that
   may become of it.

   No spawner ever runs Python or takes the GIL, and of Python's it looks at nothing but the texts that a command is
   started with. All that spawners share with Python is looked at with the lock held, which is held for microseconds. A
   process is reaped with it held, too: so whoever finds a command with its spawner may rely on its pid. */

#include "spawners.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK_SIZE = 1 << 16 }; /* bytes of a spawner; hardly any is used */

void append(Queue *queue, Command *command)
{
    command->next = NULL;
    *queue->end = command;
    queue->end = &command->next;
    queue->length++;
}

Command *take_first(Queue *queue)
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

void empty(Queue *queue)
{
    *queue = (Queue){NULL, &queue->first, 0};
}

void move_all(Queue *from, Queue *to)
{
    empty(to);
    while (from->first) append(to, take_first(from));
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

int add_spawner(Shared *shared)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    Spawner *spawner = calloc(1, sizeof *spawner);
    if (spawner == NULL) return 0;
    spawner->shared = shared;
    sigfillset(&all);
    sigdelset(&all, SIGCHLD); /* if a child's parent blocked it, it would count as heard, and wake another thread */
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
    shared->count++;
    shared->idle++;
    return 1;
}

/* There may be more that may begin. Where no spawner is free for it, another is added, once the one before has made a
   process: so where processes are short, spawners do not take those that commands need. Nor is one added while another
   is coming back, which has no command of those that are busy any more. */
void go_on(Shared *shared)
{
    int none_comes = shared->idle == 0 && shared->starting == 0 && shared->count - shared->stuck <= shared->busy;
    if (none_comes && may_begin(shared)) add_spawner(shared);
    for (Py_ssize_t count = may_begin(shared); count > 0; count--) pthread_cond_signal(&shared->may_begin);
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

    if (spawner->command == NULL) return; /* Python sees to it, or has done so: it may be freed */
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
void hold_all(Shared *shared)
{
    shared->held++;
    while (shared->starting) pthread_cond_wait(&shared->none_starts, &shared->lock);
}

void release_all(Shared *shared)
{
    shared->held--;
    go_on(shared);
}
