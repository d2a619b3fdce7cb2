// dnnl: the only door to oneDNN. Everything that differs between its versions 2 and 3 is behind it.
#ifndef COMMON_TENSOR_CPU_DNNL_H
#define COMMON_TENSOR_CPU_DNNL_H

// "2.6.3" into buf; returns buf.
char *dnnl_version_text(char buf[32]);

#endif
