// nearest: which known word a mistyped one was meant to be.
//
//     const char *s = nearest_word("fowrard", names, cnt);
//     FAIL(ERR_USAGE, "unknown command '%s'%s%s", word, s ? ", did you mean " : "", s ? s : "");
#ifndef COMMON_BASE_NEAREST_H
#define COMMON_BASE_NEAREST_H

// The word with the fewest insertions, deletions, replacements and swaps of neighbours between it and
// `typed`, if that is at most a third of its length (at least 1); the first of equals. NULL: none is near.
// Words longer than 63 bytes are never near.
const char *nearest_word(const char *typed, const char *const *word, int cnt);

#endif
