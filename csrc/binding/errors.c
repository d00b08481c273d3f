#include "binding/core.h"

PyObject *lcpy_raise(lc_status status)
{
    PyObject *type = PyExc_RuntimeError;
    switch (status) {
    case LC_OK:
    case LC_ERR_RUNTIME:
        break;
    case LC_ERR_VALUE:
        type = PyExc_ValueError;
        break;
    case LC_ERR_TYPE:
        type = PyExc_TypeError;
        break;
    case LC_ERR_INDEX:
        type = PyExc_IndexError;
        break;
    case LC_ERR_KEY:
        type = PyExc_KeyError;
        break;
    case LC_ERR_MEMORY:
        type = PyExc_MemoryError;
        break;
    case LC_ERR_INTERRUPTED:
    case LC_ERR_HOST: /* set already, by the signal handler or the callback */
        if (PyErr_Occurred())
            return NULL;
        type = status == LC_ERR_INTERRUPTED ? PyExc_KeyboardInterrupt : PyExc_RuntimeError;
        break;
    }
    PyErr_SetString(type, lc_error_message());
    return NULL;
}

int lcpy_check(lc_status status)
{
    if (status == LC_OK)
        return 0;
    lcpy_raise(status);
    return -1;
}
