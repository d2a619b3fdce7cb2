// version: the version of this program, as `vader --version` and bundles state it.
#ifndef COMMON_BASE_VERSION_H
#define COMMON_BASE_VERSION_H

#define VADER_VERSION "0.1.0"

#endif
