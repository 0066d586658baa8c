/* What spawners share among themselves, and with Python: see spawners.c. */

#ifndef BOSSWORKER_SPAWNERS_H
#define BOSSWORKER_SPAWNERS_H

#include "starting.h"
#include <pthread.h>

enum { QUEUED, STARTING, RUNNING, ENDED };                 /* states of a cell, as in cells.py */
enum { STATE, PID, STARTED, STATUS, OUTPUT, TOOK, WORDS }; /* its words */

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
    Py_ssize_t count, idle; /* spawners; those that have no command */
    Py_ssize_t stuck;       /* those whose commands have been given up, and may never end */
    int held;               /* not 0: nothing may begin */
    int exhausted;          /* no process was to be had; until one has ended */
    int told;               /* whether Python knows that there is something to collect */
    int watched;            /* whether Python comes by itself, since it knows of one that runs */
    int event, children;    /* descriptors: by which it is told; the list of those that came to us as orphans */
    sigset_t blocked;       /* by commands */
} Shared;

/* With the lock held, or of a queue that nobody else knows. */
void empty(Queue *queue);
void append(Queue *queue, Command *command);
Command *take_first(Queue *queue);
void move_all(Queue *from, Queue *to);

/* With the lock held. */
int add_spawner(Shared *shared);
void go_on(Shared *shared);
void hold_all(Shared *shared);
void release_all(Shared *shared);

#endif
