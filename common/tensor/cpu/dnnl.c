// dnnl: oneDNN 2.6 and 3.x behind one set of calls.
#include "common/tensor/cpu/dnnl.h"

#include <dnnl.h>
#include <stdio.h>

char *dnnl_version_text(char buf[32]) {
    const dnnl_version_t *v = dnnl_version();
    snprintf(buf, 32, "%d.%d.%d", v->major, v->minor, v->patch);
    return buf;
}
