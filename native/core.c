/* bossworker._core: what tiny jobs, and the starts of programs, cost most of, compiled. Optional: without it, Python does
   all of the same.

   Plain data (str, int of 64 bits, float, bytes, bool, None, and dicts and lists of these) is pickled here into the very
   bytes that `pickle` makes of it, and loaded from them; and a worker's loop runs jobs of plain data. Whatever is
   anything else is left to Python: a function then returns None, and has changed nothing.

   Everything is done with the GIL held. While a value is packed no Python code can run: nothing but exact types of
   Python's own is looked into. */

#define _GNU_SOURCE /* memmem */
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define INTERFACE 3 /* bossworker/system/compiled.py must expect the same */
#define MOST_DEPTH 20
#define MOST_MEMO 100 /* objects of one result that pickle would number; beyond, Python does it */
#define MOST_BATCH 1000 /* items that pickle writes at one go */

/* -- packing ------------------------------------------------------------------------------------------------------ */

typedef struct {
    unsigned char *at, *end;
    int memo;                   /* whether objects are numbered: protocol 3; without: protocol 5, `fast` */
    int known;                  /* how many are */
    PyObject *objects[MOST_MEMO]; /* borrowed: the value that is packed holds them */
} Packer;

static int pack(Packer *p, PyObject *value, int depth);

static inline void start_packing(Packer *p, unsigned char *at, unsigned char *end, int memo)
{
    p->at = at;
    p->end = end;
    p->memo = memo;
    p->known = 0; /* the objects are left as they are: to clear them would take longer than to pack a small result */
}

static inline int put(Packer *p, const void *bytes, size_t size)
{
    if ((size_t)(p->end - p->at) < size) return 0;
    memcpy(p->at, bytes, size);
    p->at += size;
    return 1;
}

static inline int put1(Packer *p, unsigned char byte)
{
    if (p->at >= p->end) return 0;
    *p->at++ = byte;
    return 1;
}

static inline int put_sized(Packer *p, unsigned char code, const void *bytes, Py_ssize_t size)
{
    unsigned char head[5] = {code, size & 0xff, (size >> 8) & 0xff, (size >> 16) & 0xff, (size >> 24) & 0xff};
    return size <= 0x7fffffff && put(p, head, 5) && put(p, bytes, size);
}

static inline int put_short(Packer *p, unsigned char code, const void *bytes, Py_ssize_t size)
{
    return put1(p, code) && put1(p, (unsigned char)size) && put(p, bytes, size);
}

/* 1: it was numbered before, and is referred to; 0: it was not; -1: no room */
static int refer(Packer *p, PyObject *value)
{
    if (!p->memo) return 0;
    for (int n = 0; n < p->known; n++)
        if (p->objects[n] == value) return put1(p, 'h') && put1(p, (unsigned char)n) ? 1 : -1;
    return 0;
}

static int number(Packer *p, PyObject *value)
{
    if (!p->memo) return 1;
    if (p->known >= MOST_MEMO) return 0;
    p->objects[p->known] = value;
    return put1(p, 'q') && put1(p, (unsigned char)p->known++);
}

static int pack_int(Packer *p, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) return 0;
    if (number == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    unsigned char out[11];
    if (number >= -0x80000000LL && number <= 0x7fffffffLL) {
        uint32_t bits = (uint32_t)number;
        for (int n = 0; n < 4; n++) out[1 + n] = (bits >> 8 * n) & 0xff;
        if (out[3] || out[4]) return out[0] = 'J', put(p, out, 5);
        if (out[2]) return out[0] = 'M', put(p, out, 3);
        return out[0] = 'K', put(p, out, 2);
    }
    uint64_t bits = (uint64_t)number, size = number < 0 ? -bits : bits;
    int count = (64 - __builtin_clzll(size)) / 8 + 1;
    for (int n = 0; n < 8; n++) out[2 + n] = (bits >> 8 * n) & 0xff;
    out[10] = number < 0 ? 0xff : 0;
    if (number < 0 && count > 1 && out[1 + count] == 0xff && (out[count] & 0x80)) count--;
    out[0] = 0x8a;
    out[1] = count;
    return put(p, out, 2 + count);
}

static int pack_float(Packer *p, PyObject *value)
{
    double number = PyFloat_AsDouble(value);
    uint64_t bits;
    unsigned char out[9] = {'G'};
    memcpy(&bits, &number, 8);
    for (int n = 0; n < 8; n++) out[1 + n] = (bits >> (56 - 8 * n)) & 0xff;
    return put(p, out, 9);
}

static int pack_text(Packer *p, PyObject *value)
{
    int found = refer(p, value);
    if (found) return found > 0;
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL) { /* lone surrogates */
        PyErr_Clear();
        return 0;
    }
    if (p->memo || size > 0xff ? !put_sized(p, 'X', text, size) : !put_short(p, 0x8c, text, size)) return 0;
    return number(p, value);
}

static int pack_bytes(Packer *p, PyObject *value)
{
    int found = refer(p, value);
    if (found) return found > 0;
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(value, &bytes, &size) < 0) {
        PyErr_Clear();
        return 0;
    }
    if (size > 0xff ? !put_sized(p, 'B', bytes, size) : !put_short(p, 'C', bytes, size)) return 0;
    return number(p, value);
}

static int pack_dict(Packer *p, PyObject *value, int depth)
{
    int found = refer(p, value);
    if (found) return found > 0;
    Py_ssize_t size = PyDict_Size(value), at = 0;
    if (size > MOST_BATCH || !put1(p, '}') || !number(p, value)) return 0;
    if (!size) return 1;
    if (size > 1 && !put1(p, '(')) return 0;
    PyObject *key, *item;
    while (PyDict_Next(value, &at, &key, &item))
        if (!pack(p, key, depth + 1) || !pack(p, item, depth + 1)) return 0;
    return put1(p, size > 1 ? 'u' : 's');
}

static int pack_list(Packer *p, PyObject *value, int depth)
{
    int found = refer(p, value);
    if (found) return found > 0;
    Py_ssize_t size = PyList_Size(value);
    if (size > MOST_BATCH || !put1(p, ']') || !number(p, value)) return 0;
    if (!size) return 1;
    if (size > 1 && !put1(p, '(')) return 0;
    for (Py_ssize_t at = 0; at < size; at++)
        if (!pack(p, PyList_GetItem(value, at), depth + 1)) return 0;
    return put1(p, size > 1 ? 'e' : 'a');
}

/* Whether it is plain, and there was room for it. */
static int pack(Packer *p, PyObject *value, int depth)
{
    if (PyLong_CheckExact(value)) return pack_int(p, value);
    if (PyUnicode_CheckExact(value)) return pack_text(p, value);
    if (PyFloat_CheckExact(value)) return pack_float(p, value);
    if (value == Py_None) return put1(p, 'N');
    if (value == Py_True) return put1(p, 0x88);
    if (value == Py_False) return put1(p, 0x89);
    if (PyBytes_CheckExact(value)) return pack_bytes(p, value);
    if (depth > MOST_DEPTH) return 0;
    if (PyDict_CheckExact(value)) return pack_dict(p, value, depth);
    if (PyList_CheckExact(value)) return pack_list(p, value, depth);
    return 0;
}

static PyObject *ERROR_KEY;

/* A result, as `encode_result` would encode one that is OK, less its full stop; its size, or -1. */
static Py_ssize_t pack_result(unsigned char *at, unsigned char *end, PyObject *value)
{
    static const unsigned char head[] = {0x80, 3};
    Packer p;
    start_packing(&p, at, end, 1);
    if (value == Py_None) return put(&p, head, 2) && put(&p, "}q", 3) ? p.at - at : -1; /* and the number, 0 */
    if (!PyDict_CheckExact(value) || PyDict_GetItemWithError(value, ERROR_KEY) != NULL) return -1;
    return put(&p, head, 2) && pack_dict(&p, value, 0) && p.at < p.end ? p.at - at : -1;
}

static PyObject *core_pack_result(PyObject *module, PyObject *value)
{
    size_t room = 1 << 16;
    unsigned char *buffer = PyMem_Malloc(room);
    if (buffer == NULL) return PyErr_NoMemory();
    Py_ssize_t size = pack_result(buffer, buffer + room, value);
    PyObject *packed = size < 0 ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize((char *)buffer, size);
    PyMem_Free(buffer);
    return packed;
}

/* A block of jobs, as `_BlockPickler` makes one; its size, or -1. */
static Py_ssize_t pack_block(unsigned char *buffer, Py_ssize_t room, PyObject *jobs, Py_ssize_t start, Py_ssize_t stop)
{
    static const unsigned char head[] = {0x80, 5, 0x95, 0, 0, 0, 0, 0, 0, 0, 0, ']', '('};
    Packer p;
    start_packing(&p, buffer, buffer + room, 0);
    if (!put(&p, head, sizeof head)) return -1;
    for (Py_ssize_t n = start; n < stop; n++) {
        PyObject *job = PyTuple_GetItem(jobs, n);
        if (!PyDict_CheckExact(job) || !pack_dict(&p, job, 0)) return -1;
    }
    if (!put(&p, "e.", 2)) return -1;
    uint64_t framed = p.at - buffer - 11;
    for (int n = 0; n < 8; n++) buffer[3 + n] = (framed >> 8 * n) & 0xff;
    return p.at - buffer;
}

/* encode_blocks(jobs, block_jobs, block_bytes) -> list of bytes, with None in the place of a block that is not plain */
static PyObject *core_encode_blocks(PyObject *module, PyObject *args)
{
    PyObject *jobs;
    Py_ssize_t most, room;
    if (!PyArg_ParseTuple(args, "O!nn", &PyTuple_Type, &jobs, &most, &room)) return NULL;
    if (most < 2 || most > MOST_BATCH) return PyErr_Format(PyExc_ValueError, "blocks of %zd jobs", most);
    Py_ssize_t count = PyTuple_Size(jobs);
    unsigned char *buffer = PyMem_Malloc(room);
    PyObject *blocks = buffer ? PyList_New(0) : PyErr_NoMemory();
    for (Py_ssize_t start = 0; blocks && start < count; start += most) {
        Py_ssize_t stop = start + most < count ? start + most : count;
        Py_ssize_t size = stop - start > 1 ? pack_block(buffer, room, jobs, start, stop) : -1;
        PyObject *block = size < 0 ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize((char *)buffer, size);
        if (block == NULL || PyList_Append(blocks, block) < 0) Py_CLEAR(blocks);
        Py_XDECREF(block);
    }
    PyMem_Free(buffer);
    return blocks;
}

/* -- loading ------------------------------------------------------------------------------------------------------ */

/* A small machine for those of pickle's instructions that are used for plain data. What it is given may be anything
   (a handler may have written over it): then it gives up, and Python looks at it. */

#define STACK 3000
#define MARKS 40
#define KEYS 16
#define KEY_SIZE 40

typedef struct {
    const unsigned char *at, *end;
    int known, depth, marked, texts;
    PyObject *objects[MOST_MEMO]; /* that have a number */
    PyObject *stack[STACK];
    int marks[MARKS];
    struct {
        PyObject *text;
        uint32_t size;
        unsigned char bytes[KEY_SIZE];
    } cache[KEYS]; /* the n-th texts of the dict before: keys, which are mostly the same */
    PyTypeObject *result; /* what the next dict is to be, if it is a result */
    newfunc new_dict;
    PyObject *no_arguments;
} Loader;

static Loader *new_loader(const unsigned char *at, size_t size)
{
    Loader *l = PyMem_Malloc(sizeof(Loader));
    if (l == NULL) return NULL;
    l->at = at;
    l->end = at + size;
    l->known = l->depth = l->marked = l->texts = 0;
    l->result = NULL;
    for (int n = 0; n < KEYS; n++) l->cache[n].text = NULL;
    return l;
}

static void forget_numbers(Loader *l)
{
    while (l->known) Py_DECREF(l->objects[--l->known]);
}

static void free_loader(Loader *l)
{
    forget_numbers(l);
    while (l->depth) Py_DECREF(l->stack[--l->depth]);
    for (int n = 0; n < KEYS; n++) Py_XDECREF(l->cache[n].text);
    PyMem_Free(l);
}

static inline const unsigned char *get(Loader *l, size_t size)
{
    const unsigned char *bytes = l->at;
    if ((size_t)(l->end - bytes) < size) return NULL;
    l->at += size;
    return bytes;
}

static inline const unsigned char *get_sized(Loader *l, int width, uint32_t *size)
{
    const unsigned char *bytes = get(l, width);
    if (bytes == NULL) return NULL;
    *size = bytes[0];
    if (width == 4) *size |= (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    return get(l, *size);
}

/* Takes the reference. */
static inline int push(Loader *l, PyObject *value)
{
    if (value == NULL) return 0;
    if (l->depth >= STACK) return Py_DECREF(value), 0;
    l->stack[l->depth++] = value;
    return 1;
}

static int load_text(Loader *l, int width)
{
    uint32_t size;
    const unsigned char *bytes = get_sized(l, width, &size);
    int place = l->texts++;
    if (bytes == NULL) return 0;
    if (size > KEY_SIZE || place >= KEYS) return push(l, PyUnicode_DecodeUTF8((const char *)bytes, size, NULL));
    PyObject *text = l->cache[place].text;
    if (text != NULL && l->cache[place].size == size && !memcmp(l->cache[place].bytes, bytes, size))
        return push(l, Py_NewRef(text));
    if ((text = PyUnicode_DecodeUTF8((const char *)bytes, size, NULL)) == NULL) return 0;
    Py_XDECREF(l->cache[place].text);
    l->cache[place].text = Py_NewRef(text);
    l->cache[place].size = size;
    memcpy(l->cache[place].bytes, bytes, size);
    return push(l, text);
}

static int load_bytes(Loader *l, int width)
{
    uint32_t size;
    const unsigned char *bytes = get_sized(l, width, &size);
    return bytes != NULL && push(l, PyBytes_FromStringAndSize((const char *)bytes, size));
}

static int load_int(Loader *l, int width, int is_signed)
{
    const unsigned char *bytes = get(l, width);
    uint64_t bits = 0;
    if (bytes == NULL) return 0;
    for (int n = 0; n < width; n++) bits |= (uint64_t)bytes[n] << 8 * n;
    if (is_signed && width < 8 && bytes[width - 1] & 0x80) bits |= ~(uint64_t)0 << 8 * width;
    return push(l, PyLong_FromLongLong((long long)bits));
}

static int load_long(Loader *l)
{
    const unsigned char *width = get(l, 1);
    return width != NULL && *width >= 1 && *width <= 8 && load_int(l, *width, 1);
}

static int load_float(Loader *l)
{
    const unsigned char *bytes = get(l, 8);
    uint64_t bits = 0;
    double number;
    if (bytes == NULL) return 0;
    for (int n = 0; n < 8; n++) bits = bits << 8 | bytes[n];
    memcpy(&number, &bits, 8);
    return push(l, PyFloat_FromDouble(number));
}

static int load_dict(Loader *l)
{
    PyTypeObject *type = l->result;
    l->result = NULL;
    if (type == NULL) return push(l, PyDict_New());
    PyObject *result = l->new_dict(type, l->no_arguments, NULL);
    /* As plain dicts do, it is tracked as soon as something is put into it that could refer back to it. */
    if (result != NULL && Py_Version < 0x030e0000) PyObject_GC_UnTrack(result);
    return push(l, result);
}

/* The depth below which nothing may be touched now: that of the last mark. */
static inline int floor_of(const Loader *l)
{
    return l->marked ? l->marks[l->marked - 1] : 0;
}

static int load_mark(Loader *l)
{
    if (l->marked >= MARKS) return 0;
    l->marks[l->marked++] = l->depth;
    return 1;
}

static int note_number(Loader *l)
{
    const unsigned char *number = get(l, 1);
    if (number == NULL || *number != l->known || l->known >= MOST_MEMO || l->depth <= floor_of(l)) return 0;
    l->objects[l->known++] = Py_NewRef(l->stack[l->depth - 1]);
    return 1;
}

/* Not the dict itself, which is 0. */
static int load_numbered(Loader *l)
{
    const unsigned char *number = get(l, 1);
    return number != NULL && *number && *number < l->known && push(l, Py_NewRef(l->objects[*number]));
}

/* Puts the values from `start` on into what lies below them. */
static int fill(Loader *l, int start, int is_dict)
{
    if (start <= floor_of(l) || start > l->depth || (is_dict && (l->depth - start) % 2)) return 0;
    PyObject *filled = l->stack[start - 1];
    if (is_dict ? !PyDict_Check(filled) : !PyList_CheckExact(filled)) return 0;
    for (int n = start; n < l->depth; n += 1 + is_dict)
        if (is_dict ? PyDict_SetItem(filled, l->stack[n], l->stack[n + 1]) : PyList_Append(filled, l->stack[n])) return 0;
    while (l->depth > start) Py_DECREF(l->stack[--l->depth]);
    return 1;
}

static int fill_to_mark(Loader *l, int is_dict)
{
    return l->marked && fill(l, l->marks[--l->marked], is_dict);
}

static int step(Loader *l, int code)
{
    switch (code) {
    case 'K': return load_int(l, 1, 0);
    case 'M': return load_int(l, 2, 0);
    case 'J': return load_int(l, 4, 1);
    case 0x8a: return load_long(l);
    case 'G': return load_float(l);
    case 'X': return load_text(l, 4);
    case 0x8c: return load_text(l, 1);
    case 'B': return load_bytes(l, 4);
    case 'C': return load_bytes(l, 1);
    case 'N': return push(l, Py_NewRef(Py_None));
    case 0x88: return push(l, Py_NewRef(Py_True));
    case 0x89: return push(l, Py_NewRef(Py_False));
    case '}': return load_dict(l);
    case ']': return push(l, PyList_New(0));
    case '(': return load_mark(l);
    case 's': return fill(l, l->depth - 2, 1);
    case 'u': return fill_to_mark(l, 1);
    case 'a': return fill(l, l->depth - 1, 0);
    case 'e': return fill_to_mark(l, 0);
    case 'q': return note_number(l);
    case 'h': return load_numbered(l);
    default: return 0;
    }
}

static int load_block(Loader *l)
{
    const unsigned char *head = get(l, 13);
    static const unsigned char wanted[] = {0x80, 5, 0x95};
    if (head == NULL || memcmp(head, wanted, 3) || head[11] != ']' || head[12] != '(') return 0;
    uint64_t framed = 0;
    for (int n = 0; n < 8; n++) framed |= (uint64_t)head[3 + n] << 8 * n;
    if (framed != (uint64_t)(l->end - head) - 11) return 0;
    if (!push(l, PyList_New(0)) || !load_mark(l)) return 0;
    while (l->at < l->end && *l->at != '.') {
        if (*l->at == '}' && l->marked == 1) l->texts = 0; /* the next job */
        if (!step(l, *l->at++)) return 0;
    }
    return l->end - l->at == 1 && l->depth == 1 && !l->marked;
}

/* load_block(data) -> the list of jobs in a block; None if it has to be left to pickle */
static PyObject *core_load_block(PyObject *module, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    Loader *l = new_loader(view.buf, view.len);
    PyObject *jobs = NULL;
    if (l != NULL) {
        if (load_block(l)) jobs = Py_NewRef(l->stack[0]);
        free_loader(l);
    }
    PyBuffer_Release(&view);
    PyErr_Clear();
    return jobs != NULL ? jobs : Py_NewRef(Py_None);
}

/* Each result begins with the version of pickle. */
static int load_results(Loader *l, PyTypeObject *type, PyObject *results)
{
    while (l->at < l->end) {
        const unsigned char *head = get(l, 3);
        if (head == NULL || head[0] != 0x80 || head[1] != 3 || head[2] != '}') return 0;
        forget_numbers(l);
        l->texts = 0;
        l->result = type;
        if (!load_dict(l)) return 0;
        while (l->at < l->end && *l->at != 0x80)
            if (!step(l, *l->at++)) return 0;
        if (l->depth != 1 || l->marked || PyList_Append(results, l->stack[0]) < 0) return 0;
        Py_DECREF(l->stack[--l->depth]);
    }
    return 1;
}

/* load_results(data, type) -> the results in a stretch of them, as instances of this subclass of dict, not initialized;
   None if it has to be left to pickle */
static PyObject *core_load_results(PyObject *module, PyObject *args)
{
    PyObject *data, *type;
    Py_buffer view;
    if (!PyArg_ParseTuple(args, "OO!", &data, &PyType_Type, &type)) return NULL;
    if (!PyType_IsSubtype((PyTypeObject *)type, &PyDict_Type))
        return PyErr_Format(PyExc_TypeError, "%R is no subclass of dict", type);
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    Loader *l = new_loader(view.buf, view.len);
    PyObject *results = PyList_New(0);
    if (l != NULL && results != NULL) {
        l->new_dict = (newfunc)PyType_GetSlot(&PyDict_Type, Py_tp_new);
        l->no_arguments = PyTuple_New(0);
        if (!load_results(l, (PyTypeObject *)type, results)) Py_CLEAR(results);
        Py_XDECREF(l->no_arguments);
    }
    if (l != NULL) free_loader(l);
    PyBuffer_Release(&view);
    PyErr_Clear();
    return results != NULL ? results : Py_NewRef(Py_None);
}

#define POSITIONS 4096
static PyObject *POSITION[POSITIONS]; /* these numbers, once they were needed */

static PyObject *position_of(Py_ssize_t n)
{
    if (n >= POSITIONS) return PyLong_FromSsize_t(n);
    if (POSITION[n] == NULL) POSITION[n] = PyLong_FromSsize_t(n);
    return Py_XNewRef(POSITION[n]);
}

/* attach(results, origin, origin_slot, at_slot): set two slots of each: the one thing, and its position */
static PyObject *core_attach(PyObject *module, PyObject *args)
{
    PyObject *results, *origin, *origin_slot, *at_slot;
    if (!PyArg_ParseTuple(args, "O!OOO", &PyList_Type, &results, &origin, &origin_slot, &at_slot)) return NULL;
    descrsetfunc set_origin = (descrsetfunc)PyType_GetSlot(Py_TYPE(origin_slot), Py_tp_descr_set);
    descrsetfunc set_at = (descrsetfunc)PyType_GetSlot(Py_TYPE(at_slot), Py_tp_descr_set);
    if (set_origin == NULL || set_at == NULL) return PyErr_Format(PyExc_TypeError, "no slots of a class");
    for (Py_ssize_t n = 0; n < PyList_Size(results); n++) {
        PyObject *result = PyList_GetItem(results, n), *at = position_of(n);
        if (at == NULL) return NULL;
        int failed = set_origin(origin_slot, result, origin) < 0 || set_at(at_slot, result, at) < 0;
        Py_DECREF(at);
        if (failed) return NULL;
    }
    Py_RETURN_NONE;
}

/* track(result): have the garbage collector look at it: it may come to refer to itself. Returns it. */
static PyObject *core_track(PyObject *module, PyObject *result)
{
    if (!PyObject_GC_IsTracked(result)) PyObject_GC_Track(result);
    return Py_NewRef(result);
}

/* -- a worker's loop ---------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Py_buffer slot; /* of the flight recorder */
    sem_t *unclaimed, *published;
    double *marks;
    uint64_t *ends;
    unsigned char *outcomes, *payload, *payload_end;
    unsigned long long armed; /* 1 + id of the job that JobTimeout may be raised in */
    Py_ssize_t at;            /* position of the job that was taken last, among those that `run` was given */
    Py_ssize_t end;           /* where the results so far end */
    char open;                /* whether that job has no result yet */
    char over;                /* whether no more jobs may be claimed */
    char copy;                /* whether this is a child that a handler forked */
    char by_value;            /* whether what is defined in __main__ must not go by its name */
    int pipe, error_pipe;     /* that the output goes into, if it is relayed; else -1: see relayed_output.py */
    double short_seconds;     /* jobs no longer than this are mostly not looked after */
    uint64_t *output;         /* DIRTY, CAREFUL, LOOKED */
    uint64_t *reads;          /* how often the boss has begun or ended to read either pipe */
} Loop;

enum { DIRTY, CAREFUL, LOOKED }; /* as in recorder.py */

static PyObject *loop_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *slot;
    Py_ssize_t unclaimed, published, marks, ends, outcomes, payload, payload_size, output, reads;
    if (!PyArg_ParseTuple(args, "Onnnnnnnnn", &slot, &unclaimed, &published, &marks, &ends, &outcomes, &payload,
                          &payload_size, &output, &reads))
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Loop *self = (Loop *)alloc(type, 0);
    if (self == NULL) return NULL;
    if (PyObject_GetBuffer(slot, &self->slot, PyBUF_WRITABLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    unsigned char *start = self->slot.buf;
    self->unclaimed = (sem_t *)(start + unclaimed);
    self->published = (sem_t *)(start + published);
    self->marks = (double *)(start + marks);
    self->ends = (uint64_t *)(start + ends);
    self->outcomes = start + outcomes;
    self->payload = start + payload;
    self->payload_end = self->payload + payload_size;
    self->output = (uint64_t *)(start + output);
    self->reads = (uint64_t *)(start + reads);
    self->pipe = self->error_pipe = -1;
    if (payload + payload_size <= self->slot.len) return (PyObject *)self;
    Py_DECREF(self);
    return PyErr_Format(PyExc_ValueError, "a slot of %zd bytes is too small", self->slot.len);
}

static void loop_free(PyObject *object)
{
    Loop *self = (Loop *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->slot.obj != NULL) PyBuffer_Release(&self->slot);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static double now(void)
{
    struct timespec time; /* as time.monotonic: of the same clock, rounded in the same way */
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)((int64_t)time.tv_sec * 1000000000 + time.tv_nsec) / 1e9;
}

/* Whether something lies in a pipe, or was read from it since the last look, or just is (then the count is odd). In this
   order: if the boss has emptied it, we see that it has counted that. */
static int was_written_to(Loop *self, int pipe, int which)
{
    int unread = 0;
    if (ioctl(pipe, FIONREAD, &unread) != 0 || unread != 0) return 1;
    uint64_t reads = __atomic_load_n(&self->reads[which], __ATOMIC_ACQUIRE);
    return reads % 2 || reads != self->output[LOOKED + which];
}

/* Whether Python has to see to the output of the job that began then: as `RelayedOutput.job_ended` */
static int may_have_written(Loop *self, double began)
{
    if (self->pipe < 0) return 0;
    if (self->output[DIRTY]) return 1;
    if (!self->output[CAREFUL] && now() - began <= self->short_seconds) return 0;
    if (was_written_to(self, self->pipe, 0) || was_written_to(self, self->error_pipe, 1)) return 1;
    if (self->output[CAREFUL]) self->output[CAREFUL]--;
    return 0;
}

static int names_main(const unsigned char *at, size_t size)
{
    return memmem(at, size, "__main__", 8) != NULL;
}

/* run(work, jobs, position, index, number) -> None, or what the handler returned for the job `at`, if it is not plain,
   or if the job may have written something

   Claims, runs and publishes jobs[position:]; the first of them is the `index`-th of the batch, and `number` is 1 + its
   id. What the handler raises is raised; the job `at` is `open` then, and `armed`. */
static PyObject *loop_run(PyObject *object, PyObject *args)
{
    Loop *self = (Loop *)object;
    PyObject *work, *jobs;
    Py_ssize_t position, index;
    unsigned long long number;
    if (!PyArg_ParseTuple(args, "OO!nnK", &work, &PyList_Type, &jobs, &position, &index, &number)) return NULL;
    for (; position < PyList_Size(jobs); position++, index++, number++) {
        if (sem_trywait(self->unclaimed) != 0) {
            self->over = 1;
            break;
        }
        self->at = position;
        self->open = 1;
        self->armed = number;
        PyObject *value = PyObject_CallFunctionObjArgs(work, PyList_GetItem(jobs, position), NULL);
        if (value == NULL) return NULL;
        /* Signals are seen to here if the handler is not written in Python, and while the job is still armed. */
        if (PyErr_CheckSignals() < 0) {
            Py_DECREF(value);
            return NULL;
        }
        unsigned char *start = self->payload + self->end;
        int plain = !self->copy && !may_have_written(self, self->marks[index]);
        Py_ssize_t size = plain ? pack_result(start, self->payload_end, value) : -1;
        if (size < 0 || (self->by_value && names_main(start, size))) return value;
        self->armed = 0;
        Py_DECREF(value); /* plain data: no code runs */
        self->end += size;
        self->ends[index] = self->end;
        self->marks[index + 1] = now();
        sem_post(self->published);
        self->open = 0;
    }
    Py_RETURN_NONE;
}

static PyMethodDef loop_methods[] = {
    {"run", loop_run, METH_VARARGS, NULL},
    {NULL},
};

static PyMemberDef loop_members[] = {
    {"armed", T_ULONGLONG, offsetof(Loop, armed), 0, NULL},
    {"at", T_PYSSIZET, offsetof(Loop, at), READONLY, NULL},
    {"end", T_PYSSIZET, offsetof(Loop, end), 0, NULL},
    {"open", T_BOOL, offsetof(Loop, open), 0, NULL},
    {"over", T_BOOL, offsetof(Loop, over), 0, NULL},
    {"copy", T_BOOL, offsetof(Loop, copy), 0, NULL},
    {"by_value", T_BOOL, offsetof(Loop, by_value), 0, NULL},
    {"pipe", T_INT, offsetof(Loop, pipe), 0, NULL},
    {"error_pipe", T_INT, offsetof(Loop, error_pipe), 0, NULL},
    {"short_seconds", T_DOUBLE, offsetof(Loop, short_seconds), 0, NULL},
    {NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_free},
    {Py_tp_methods, loop_methods},
    {Py_tp_members, loop_members},
    {0},
};

static PyType_Spec loop_spec = {"bossworker._core.Loop", sizeof(Loop), 0, Py_TPFLAGS_DEFAULT, loop_slots};

/* -- starting programs -------------------------------------------------------------------------------------------- */

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
static PyObject *core_prepare_starts(PyObject *module, PyObject *unused)
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
static PyObject *core_start(PyObject *module, PyObject *args)
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

/* ----------------------------------------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"pack_result", core_pack_result, METH_O, NULL},
    {"encode_blocks", core_encode_blocks, METH_VARARGS, NULL},
    {"load_block", core_load_block, METH_O, NULL},
    {"load_results", core_load_results, METH_VARARGS, NULL},
    {"attach", core_attach, METH_VARARGS, NULL},
    {"track", core_track, METH_O, NULL},
    {"prepare_starts", core_prepare_starts, METH_NOARGS, NULL},
    {"start", core_start, METH_VARARGS, NULL},
    {NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "bossworker._core", NULL, -1, functions};

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = PyModule_Create(&definition);
    PyObject *loop = PyType_FromSpec(&loop_spec);
    ERROR_KEY = PyUnicode_InternFromString("ERROR");
    if (module && loop && ERROR_KEY && !PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) &&
        !PyModule_AddObjectRef(module, "Loop", loop)) {
        Py_DECREF(loop);
        return module;
    }
    Py_XDECREF(loop);
    Py_XDECREF(module);
    return NULL;
}
