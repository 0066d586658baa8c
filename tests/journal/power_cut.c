/* What a power cut leaves, as far as it can be shown: a copy of each file as it was at its last sync.

   LD_PRELOAD it. After each fsync or fdatasync of a file in the folder $CUT_FROM, the file is copied to the folder
   $CUT_TO. What was written behind its last sync is not in the copy: a real cut may leave any part of that, also.
   A file that was deleted stays in the copy until the folder itself is synced. So does, in folders within $CUT_FROM, a
   file that is new: until then, its copy is hidden. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HIDDEN ".new-"

static void sync_names(const char *from, const char *to)
{
    char path[4600], shown[4600];
    DIR *folder = opendir(to);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        const char *name = entry->d_name;
        snprintf(path, sizeof path, "%s/%s", to, name);
        if (!strncmp(name, HIDDEN, strlen(HIDDEN))) {
            name += strlen(HIDDEN);
            snprintf(shown, sizeof shown, "%s/%s", to, name);
            rename(path, shown);
            memcpy(path, shown, sizeof path);
        }
        snprintf(shown, sizeof shown, "%s/%s", from, name);
        if (name[0] != '.' && access(shown, F_OK))
            unlink(path) && rmdir(path);
    }
    if (folder)
        closedir(folder);
}

static void copy_file(int in, const char *part, const char *whole)
{
    char data[65536];
    ssize_t length;
    int out = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    while (in >= 0 && out >= 0 && (length = read(in, data, sizeof data)) > 0)
        if (write(out, data, length) != length)
            abort();
    close(in);
    close(out);
    rename(part, whole);
}

static void copy(int fd)
{
    const char *from = getenv("CUT_FROM"), *to = getenv("CUT_TO");
    char link[64], path[4096], folder[4200], part[4300], whole[4300];
    struct stat what;
    if (!from || !to)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return;
    path[length] = 0;
    size_t above = strlen(from);
    if (strncmp(path, from, above) || (path[above] && path[above] != '/') || stat(path, &what))
        return;
    snprintf(folder, sizeof folder, "%s%s", to, path + above);
    if (S_ISDIR(what.st_mode)) {
        mkdir(folder, 0700);
        sync_names(path, folder);
        return;
    }
    char *name = strrchr(folder, '/');
    *name++ = 0;
    int within = strlen(folder) > strlen(to);
    mkdir(folder, 0700);
    snprintf(part, sizeof part, "%s/.%s.part", folder, name);
    snprintf(whole, sizeof whole, "%s/%s%s", folder, within ? HIDDEN : "", name);
    copy_file(open(path, O_RDONLY | O_CLOEXEC), part, whole);
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
