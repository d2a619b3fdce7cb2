// Folders that are made, are there already, or cannot be.
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/folder.h"
#include "tests/test.h"

TEST(with_all_parents) {
    char path[300], file[330];
    struct stat st;
    const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    snprintf(path, sizeof path, "%s/folder-%d/a//b/", tmp, (int)getpid());
    CHECK_OK(folder_make(path));
    CHECK(!stat(path, &st) && S_ISDIR(st.st_mode));
    CHECK_EQ(st.st_mode & 0777, 0700);
    CHECK_OK(folder_make(path));
    snprintf(file, sizeof file, "%sfile", path);
    FILE *f = fopen(file, "w");
    CHECK(f);
    fclose(f);
    strcat(file, "/c");
    CHECK_ERR(folder_make(file), ERR_IO, "file/c: Not a directory");
}
