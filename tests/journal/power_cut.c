/* What a power cut leaves, as far as it can be shown: a copy of each file as it was at its last sync.

   LD_PRELOAD it. After each fsync or fdatasync of a file in the folder $CUT_FROM, the file is copied to the folder
   $CUT_TO. What was written behind its last sync is not in the copy: a real cut may leave any part of that, also.
   A file that was deleted stays in the copy until the folder itself is synced. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void delete_missing(const char *from, const char *to)
{
    char path[4600];
    DIR *folder = opendir(to);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        snprintf(path, sizeof path, "%s/%s", from, entry->d_name);
        if (entry->d_name[0] != '.' && access(path, F_OK)) {
            snprintf(path, sizeof path, "%s/%s", to, entry->d_name);
            unlink(path);
        }
    }
    if (folder)
        closedir(folder);
}

static void copy(int fd)
{
    const char *from = getenv("CUT_FROM"), *to = getenv("CUT_TO");
    char link[64], path[4096], part[4200], whole[4200], data[65536];
    if (!from || !to)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return;
    path[length] = 0;
    if (!strcmp(path, from)) {
        delete_missing(from, to);
        return;
    }
    size_t folder = strlen(from);
    if (strncmp(path, from, folder) || path[folder] != '/' || strchr(path + folder + 1, '/'))
        return;
    snprintf(part, sizeof part, "%s/.%s.part", to, path + folder + 1);
    snprintf(whole, sizeof whole, "%s/%s", to, path + folder + 1);
    int in = open(path, O_RDONLY | O_CLOEXEC), out = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    while (in >= 0 && out >= 0 && (length = read(in, data, sizeof data)) > 0)
        if (write(out, data, length) != length)
            abort();
    close(in);
    close(out);
    rename(part, whole);
}

#define SYNC(name)                                                   \
    int name(int fd)                                                 \
    {                                                                \
        int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, #name);    \
        int result = real(fd);                                       \
        if (!result)                                                 \
            copy(fd);                                                \
        return result;                                               \
    }

SYNC(fsync)
SYNC(fdatasync)
