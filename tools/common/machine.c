/* machine.c - everything that the programs need beyond C99, with fallbacks. */
#if defined(__unix__) || defined(__APPLE__)
#define _FILE_OFFSET_BITS 64
#define _XOPEN_SOURCE 700
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#define HAVE_POSIX 1
#else
#define HAVE_POSIX 0
#endif
/* -fopenmp links the thread library on every such system; without it older C libraries would need another flag. */
#if HAVE_POSIX && defined(_OPENMP)
#include <pthread.h>
#define HAVE_THREADS 1
#else
#define HAVE_THREADS 0
#endif
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

#include "tools/common/common.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif

double seconds_now(void)
{
#if HAVE_POSIX
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#elif defined(_OPENMP)
    return omp_get_wtime();
#else
    return (double)time(NULL);
#endif
}

void binary_stdout(void)
{
#ifdef _WIN32
    _setmode(_fileno(stdout), _O_BINARY);
#endif
}

bool is_terminal(FILE *stream)
{
#if HAVE_POSIX
    return isatty(fileno(stream));
#else
    (void)stream;
    return false;
#endif
}

bool wants_color(FILE *stream)
{
    const char *no = getenv("NO_COLOR");
    return is_terminal(stream) && !(no && *no);
}

/* A signal handler may write only a sig_atomic_t, which is an int on every system with signals. */
static volatile int interrupted;

static void on_signal(int number)
{
    interrupted = 1;
    signal(number, SIG_DFL);
}

static void catch_one(int number)
{
    if (signal(number, on_signal) == SIG_IGN) signal(number, SIG_IGN);
}

const volatile int *catch_signals(void)
{
    catch_one(SIGINT);
    catch_one(SIGTERM);
#ifdef SIGHUP
    catch_one(SIGHUP);
#endif
    return &interrupted;
}

file_kind kind_of_file(const char *path)
{
#if HAVE_POSIX
    struct stat s;
    if (stat(path, &s) != 0) return FILE_ABSENT;
    return S_ISREG(s.st_mode) ? FILE_REGULAR : S_ISDIR(s.st_mode) ? FILE_FOLDER : FILE_SPECIAL;
#else
    FILE *file = fopen(path, "rb");
    if (!file) return FILE_ABSENT;
    fclose(file);
    return FILE_REGULAR;
#endif
}

#if HAVE_POSIX
bool file_key(const char *path, char out[KEY_ROOM])
{
    struct stat s;
    char target[PATH_ROOM], folder[PATH_ROOM] = ".";
    if (stat(path, &s) == 0) {
        snprintf(out, KEY_ROOM, "%llu:%llu", (unsigned long long)s.st_dev, (unsigned long long)s.st_ino);
        return !S_ISCHR(s.st_mode); /* bytes sent to a device from two sides replace nothing */
    }
    if (!resolve_links(path, target)) return false;
    const size_t length = folder_length(target);
    if (length) memcpy(folder, target, length), folder[length] = 0;
    if (stat(folder, &s) != 0) return false;
    snprintf(out, KEY_ROOM, "%llu:%llu/%s", (unsigned long long)s.st_dev, (unsigned long long)s.st_ino,
             target + length);
    return true;
}
#else
bool file_key(const char *path, char out[KEY_ROOM])
{
    if (strlen(path) >= PATH_ROOM) return false;
#ifdef _WIN32
    if (!_fullpath(out, path, PATH_ROOM)) return false; /* absolute, without "." and ".." */
    for (char *c = out; *c; c++)
        if (*c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
#else
    while (path[0] == '.' && is_separator(path[1])) path += 2;
    strcpy(out, path);
#endif
    return true;
}
#endif

bool same_file(const char *a, const char *b)
{
    char first[KEY_ROOM], second[KEY_ROOM];
    return kind_of_file(a) != FILE_ABSENT && kind_of_file(b) != FILE_ABSENT && file_key(a, first) &&
           file_key(b, second) && strcmp(first, second) == 0;
}

bool is_pipe(const char *path)
{
#if HAVE_POSIX
    struct stat s;
    return stat(path, &s) == 0 && S_ISFIFO(s.st_mode);
#else
    return !path;
#endif
}

bool leads_to_terminal(const char *path)
{
    if (strcmp(path, "-") == 0) return is_terminal(stdout);
#if HAVE_POSIX
    struct stat s;
    if (stat(path, &s) != 0 || !S_ISCHR(s.st_mode)) return false;
    const int file = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK);
    const bool terminal = file >= 0 && isatty(file);
    if (file >= 0) close(file);
    return terminal;
#else
    return false;
#endif
}

bool leads_to_stdout(const char *path)
{
    if (strcmp(path, "-") == 0) return true;
#if HAVE_POSIX
    struct stat s, t;
    return stat(path, &s) == 0 && fstat(STDOUT_FILENO, &t) == 0 && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
#else
    return false;
#endif
}

void ignore_broken_pipes(void)
{
#ifdef SIGPIPE
    signal(SIGPIPE, SIG_IGN);
#endif
}

bool make_folder(flis_ctx *ctx, const char *path)
{
    if (!flis_ok(ctx) || !folder_check(ctx, path)) return false;
    if (kind_of_file(path) == FILE_FOLDER) return true;
#if HAVE_POSIX
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && kind_of_file(path) == FILE_FOLDER)) return true;
    return flis_fail(ctx, "%s: the folder cannot be made: %s", path, strerror(errno));
#else
    return flis_fail(ctx, "%s: no such folder, and this system's C library cannot make one", path);
#endif
}

#if HAVE_THREADS
/* musl's threads have a stack of 128 KiB, where a path alone has 4. */
enum { THREAD_STACK = 4 << 20 };

static void *run_thread(void *user)
{
    thread *t = user;
    t->work(t->user);
    return NULL;
}

static bool thread_start(thread *t)
{
    pthread_attr_t how;
    pthread_t *handle = malloc(sizeof *handle);
    if (!handle || pthread_attr_init(&how) != 0) return free(handle), false;
    pthread_attr_setstacksize(&how, THREAD_STACK);
    if (pthread_create(handle, &how, run_thread, t) == 0) t->handle = handle;
    else free(handle);
    pthread_attr_destroy(&how);
    return t->handle != NULL;
}
#endif

void thread_begin(thread *t, int threads, void (*work)(void *user), void *user)
{
    *t = (thread){.work = work, .user = user};
#if HAVE_THREADS
    if (threads > 1) thread_start(t);
#else
    (void)threads;
#endif
}

void thread_end(thread *t)
{
    if (!t->work) return;
#if HAVE_THREADS
    if (t->handle) pthread_join(*(pthread_t *)t->handle, NULL);
#endif
    if (!t->handle) t->work(t->user);
    free(t->handle);
    *t = (thread){0};
}

size_t processors(void)
{
#ifdef _OPENMP
    return (size_t)omp_get_num_procs();
#else
    return 1;
#endif
}

double memory_available(void)
{
    char line[128];
    double kilobytes = 0;
    FILE *file = fopen("/proc/meminfo", "r"); /* Linux only */
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, "MemAvailable:", 13) == 0) kilobytes = strtod(line + 13, NULL);
    fclose(file);
    return kilobytes * 1024;
}

double memory_peak(void)
{
#if HAVE_POSIX
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) != 0) return 0;
#ifdef __APPLE__
    return (double)use.ru_maxrss;
#else
    return (double)use.ru_maxrss * 1024;
#endif
#else
    return 0;
#endif
}

bool scratch_folder(flis_ctx *ctx, const char *stem, char *out)
{
#if HAVE_POSIX
    const char *where = getenv("TMPDIR");
    if (!where || !*where) where = "/tmp";
    const int length = snprintf(out, PATH_ROOM, "%s/%s-XXXXXX", where, stem);
    if (length > 0 && length < PATH_ROOM && mkdtemp(out)) return true;
    return flis_fail(ctx, "%s: no temporary folder can be made there (TMPDIR chooses the place)", where);
#else
    (void)stem;
    (void)ctx;
    strcpy(out, ".");
    return true;
#endif
}

void scratch_remove(const char *folder)
{
#if HAVE_POSIX
    rmdir(folder);
#else
    (void)folder;
#endif
}

bool each_entry(const char *path, void (*add)(void *user, const char *name), void *user)
{
#if HAVE_POSIX
    DIR *folder = opendir(path);
    if (!folder) return false;
    for (struct dirent *e; (e = readdir(folder)) != NULL;) add(user, e->d_name);
    closedir(folder);
    return true;
#else
    (void)path;
    (void)add;
    (void)user;
    return false;
#endif
}

bool resolve_links(const char *path, char out[PATH_ROOM])
{
    if (strlen(path) >= PATH_ROOM) return false;
    strcpy(out, path);
#if HAVE_POSIX
    for (int depth = 0; depth < 40; depth++) {
        char to[PATH_ROOM];
        const ssize_t length = readlink(out, to, sizeof to - 1);
        if (length < 0) return true; /* not a link */
        to[length] = 0;
        const size_t head = to[0] == '/' ? 0 : folder_length(out);
        if (head + (size_t)length >= PATH_ROOM) return false;
        memmove(out + head, to, (size_t)length + 1);
    }
    return false; /* a loop of links */
#else
    return true;
#endif
}

bool absolute_path(const char *path, char out[PATH_ROOM])
{
#if HAVE_POSIX
    char folder[PATH_ROOM] = ".";
    const size_t length = folder_length(path);
    if (length >= PATH_ROOM) return false;
    if (length) memcpy(folder, path, length), folder[length] = 0;
    char *real = realpath(folder, NULL);
    const int used = real ? snprintf(out, PATH_ROOM, "%s%s%s", real, strcmp(real, "/") ? "/" : "", path + length) : 0;
    free(real);
    return used > 0 && used < PATH_ROOM;
#elif defined(_WIN32)
    return _fullpath(out, path, PATH_ROOM) != NULL;
#else
    (void)path;
    (void)out;
    return false;
#endif
}

bool is_separator(char c)
{
#ifdef _WIN32
    return c == '/' || c == '\\';
#else
    return c == '/';
#endif
}

bool file_seek(FILE *stream, uint64_t position)
{
#if HAVE_POSIX
    return position <= INT64_MAX && fseeko(stream, (off_t)position, SEEK_SET) == 0;
#else
    return position <= LONG_MAX && fseek(stream, (long)position, SEEK_SET) == 0;
#endif
}

bool file_size(FILE *stream, uint64_t *size)
{
#if HAVE_POSIX
    const int64_t end = fseeko(stream, 0, SEEK_END) == 0 ? (int64_t)ftello(stream) : -1;
#else
    const int64_t end = fseek(stream, 0, SEEK_END) == 0 ? (int64_t)ftell(stream) : -1;
#endif
    *size = end < 0 ? 0 : (uint64_t)end;
    return end >= 0;
}
