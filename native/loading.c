/* Jobs and results, loaded from their pickles. */

#include "core.h"

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
PyObject *core_load_block(PyObject *module, PyObject *data)
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
PyObject *core_load_results(PyObject *module, PyObject *args)
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
PyObject *core_attach(PyObject *module, PyObject *args)
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
PyObject *core_track(PyObject *module, PyObject *result)
{
    if (!PyObject_GC_IsTracked(result)) PyObject_GC_Track(result);
    return Py_NewRef(result);
}
