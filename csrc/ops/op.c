#include "ops/op.h"

#include "base/mem.h"

lc_status lc_step_prep(lc_step *step, size_t bytes)
{
    step->prep = lc_alloc_zero(bytes);
    if (!step->prep)
        return LC_ERR_MEMORY;
    step->prep_bytes = bytes;
    return LC_OK;
}
