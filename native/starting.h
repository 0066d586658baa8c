/* What a start of a program is made of: see starting.c. */

#ifndef BOSSWORKER_STARTING_H
#define BOSSWORKER_STARTING_H

#include "core.h"
#include <signal.h>
#include <sys/types.h>

typedef struct {
    char **argv, **files, **environment;
    const char *folder;
    int stdio[3];
    char handled[NSIG]; /* not 0: this signal is not at its default with us */
    sigset_t blocked;   /* what it has to block when it is executed */
    PyObject *held;      /* what the texts are in */
    volatile int error;  /* why it was not executed; negative: as the kernel says it */
    volatile int step;   /* what had been begun then */
    volatile pid_t busy; /* not 0 while it may use any of this: the kernel stores a 0 when it executes or ends */
} Start;

typedef struct {
    char bytes[8192] __attribute__((aligned(16)));
} Stack;

typedef struct {
    Start start; /* first: it is freed by its address */
    Stack stack;
} LoneStart;

int be_program(void *start);
pid_t begin(int (*call)(void *), Start *start, Stack *stack);
int is_busy(Start *start);
void give_up(Start *start);
int fill_start(Start *start, PyObject *args);
PyObject *start_capsule(Start *start);

#endif
