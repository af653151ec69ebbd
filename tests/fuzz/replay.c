/* SPDX-License-Identifier: Apache-2.0 */
/* Replays a fuzz corpus: passes every file under the given folders to the fuzz target once. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    static uint8_t buffer[1 << 22];
    if (!f) {
        perror(path);
        return 1;
    }
    size_t n = fread(buffer, 1, sizeof buffer, f);
    fclose(f);
    uint8_t *exact = malloc(n + !n); /* of the exact size, so that a sanitizer sees an overread */
    if (!exact) return 1;
    for (size_t i = 0; i < n; i++) exact[i] = buffer[i];
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return 0;
}

int main(int argc, char **argv)
{
    int files = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) {
            perror(argv[i]);
            return 1;
        }
        for (struct dirent *e; (e = readdir(d)); ) {
            char path[4096];
            if (e->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            if (replay(path)) return 1;
            files++;
        }
        closedir(d);
    }
    printf("%d inputs\n", files);
    return !files;
}
