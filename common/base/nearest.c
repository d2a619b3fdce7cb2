// nearest: edit distance by rows (optimal string alignment).
#include "common/base/nearest.h"

#include <string.h>

enum { LONGEST = 63 };

static int least(int a, int b) { return a < b ? a : b; }

static int distance(const char *a, int a_len, const char *b, int b_len) {
    int row[3][LONGEST + 2]; // of i, i - 1 and i - 2
    for (int j = 0; j <= b_len; j++) row[0][j] = j;
    for (int i = 1; i <= a_len; i++) {
        int *now = row[i % 3], *before = row[(i + 2) % 3], *two = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= b_len; j++) {
            now[j] =
                least(before[j - 1] + (a[i - 1] != b[j - 1]), 1 + least(before[j], now[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], two[j - 2] + 1);
        }
    }
    return row[a_len % 3][b_len];
}

const char *nearest_word(const char *typed, const char *const *word, int cnt) {
    const char *best = NULL;
    int best_distance = LONGEST;
    size_t len = strlen(typed);
    for (int i = 0; i < cnt && len <= LONGEST; i++) {
        size_t n = strlen(word[i]);
        if (n > LONGEST) continue;
        int limit = n >= 6 ? (int)n / 3 : 1, d = distance(typed, (int)len, word[i], (int)n);
        if (d <= limit && d < best_distance) best = word[i], best_distance = d;
    }
    return best;
}
