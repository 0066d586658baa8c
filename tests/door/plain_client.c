/* A client of a JSON door without ZeroMQ and without Python: a Unix socket, ZMTP 3.0 by hand, and the messages that
 * ARCHITECTURE.md lists. Written from that text alone, to see that it is enough.
 *
 *     plain_client PATH JOB...      each JOB a JSON object; prints each message of results
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void fail(const char *what) { perror(what); exit(2); }

static void put(int fd, const void *data, size_t size) {
    for (ssize_t n; size; data = (const char *)data + n, size -= n)
        if ((n = write(fd, data, size)) <= 0) fail("write");
}

static void get(int fd, void *data, size_t size) {
    for (ssize_t n; size; data = (char *)data + n, size -= n)
        if ((n = read(fd, data, size)) <= 0) fail("read");
}

/* A message, or a command (flag 4): flags, a length of one byte or (flag 2) eight, the bytes. */
static void say(int fd, unsigned char flags, const char *data, size_t size) {
    unsigned char header[9] = {flags | (size > 255 ? 2 : 0)};
    int bytes = size > 255 ? 8 : 1;
    for (int i = 0; i < bytes; i++) header[1 + i] = (uint64_t)size >> 8 * (bytes - 1 - i);
    put(fd, header, 1 + bytes);
    put(fd, data, size);
}

static char *hear(int fd, unsigned char *flags, size_t *size) {
    unsigned char length[8];
    get(fd, flags, 1);
    int bytes = *flags & 2 ? 8 : 1;
    get(fd, length, bytes);
    *size = 0;
    for (int i = 0; i < bytes; i++) *size = *size << 8 | length[i];
    char *data = calloc(*size + 1, 1);
    if (!data) fail("calloc");
    get(fd, data, *size);
    return data;
}

static void shake_hands(int fd) {
    unsigned char greeting[64] = {0xff, [9] = 0x7f, [10] = 3, [12] = 'N', 'U', 'L', 'L'}, flags;
    static const char ready[] = "\5READY\13Socket-Type\0\0\0\6DEALER";
    size_t size;
    put(fd, greeting, sizeof greeting);
    get(fd, greeting, sizeof greeting);
    if (greeting[0] != 0xff || greeting[10] < 3 || strcmp((char *)greeting + 12, "NULL")) exit(3);
    say(fd, 4, ready, sizeof ready - 1);
    char *answer = hear(fd, &flags, &size);
    if (flags != 4 || memcmp(answer, "\5READY", 6)) exit(3);
    free(answer);
}

static int is(const char *message, const char *op) {
    char wanted[40];
    snprintf(wanted, sizeof wanted, "\"op\":\"%s\"", op); /* the door writes no blanks between */
    return strstr(message, wanted) != NULL;
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char text[65536];
    size_t size, taken = 0;
    unsigned char flags;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (argc < 3 || strlen(argv[1]) >= sizeof address.sun_path) return 2;
    strcpy(address.sun_path, argv[1]);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    shake_hands(fd);
    int n = snprintf(text, sizeof text, "{\"op\":\"hello\",\"version\":1,\"form\":\"json\",\"program\":\"plain_client\"}");
    say(fd, 0, text, n);
    for (int i = 2; i < argc; i++) {
        n = snprintf(text, sizeof text, "{\"op\":\"submit\",\"jobs\":[{\"id\":%d,\"job\":%s}]}", i - 1, argv[i]);
        say(fd, 0, text, n);
    }
    say(fd, 0, "{\"op\":\"close\"}", 14);
    for (;;) {
        char *message = hear(fd, &flags, &size);
        if (flags & 4) { /* a command, such as PING of ZMTP 3.1: nothing for us */
            free(message);
            continue;
        }
        if (is(message, "results")) {
            puts(message);
            taken += size;
            n = snprintf(text, sizeof text, "{\"op\":\"credit\",\"bytes\":%zu}", taken);
            say(fd, 0, text, n);
        } else if (is(message, "closed")) {
            return 0;
        } else if (is(message, "refused") || is(message, "goodbye") || is(message, "error")) {
            fprintf(stderr, "%s\n", message);
            return 1;
        }
        free(message);
    }
}
