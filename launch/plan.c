// plan: asks the stages as a run would, and prints what they say.
#include "launch/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/group_plan.h"
#include "launch/run_dir.h"

// Work of one stage for one rollout, in floating point operations.
static double work(const GroupPlan *g, const Config *cfg, int stage) {
    double sum = 0;
    for (int k = 0; k < STEP_CNT; k++)
        sum += g->stage[stage].flops[k] * (k == STEP_SCORE ? 1 : (double)cfg->segments);
    return sum;
}

// With equal threads everywhere the stage with the most work per process bounds an update.
static void print_bound(const GroupPlan *g, const Config *cfg) {
    const double replicas[STAGE_CNT] = {(double)cfg->sampler_replicas,
                                        (double)cfg->decoder_replicas,
                                        (double)cfg->rewarder_replicas, 1};
    double total = 0, each[STAGE_CNT];
    int bound = 0, second = -1;
    for (int s = 0; s < STAGE_CNT; s++) {
        total += work(g, cfg, s);
        each[s] = work(g, cfg, s) / replicas[s];
        if (each[s] > each[bound]) bound = s;
    }
    for (int s = 0; s < STAGE_CNT; s++)
        if (s != bound && (second < 0 || each[s] > each[second])) second = s;
    printf("\nper rollout:");
    for (int s = 0; s < STAGE_CNT; s++)
        printf("  %s %.3g GFLOP (%.0f%%)", itinerary_stage_name((StageKind)s),
               work(g, cfg, s) / 1e9, 100 * work(g, cfg, s) / total);
    printf("\nper update: %.3g GFLOP, bound by the %s", total * (double)cfg->rollouts / 1e9,
           itinerary_stage_name((StageKind)bound));
    double twice = each[bound] / 2 > each[second] ? each[bound] / 2 : each[second];
    if (bound != STAGE_LEARNER)
        printf("; one more %s process on cores of its own shortens it to %.0f%%",
               itinerary_stage_name((StageKind)bound), 100 * twice / each[bound]);
    putchar('\n');
}

static Err print_plan(const Config *cfg) {
    GroupPlan g;
    TRY(run_dir_write_config(cfg));
    TRY(group_plan_make(&g, cfg));
    group_plan_print(&g, cfg, stdout);
    print_bound(&g, cfg);
    Err err = group_plan_check_fit(&g, cfg);
    group_plan_fini(&g);
    return err;
}

// The memory tables of every stage, as they printed them.
static void print_tables(void) {
    for (int s = 0; s < STAGE_CNT; s++) {
        char path[64], line[512];
        snprintf(path, sizeof path, "log/plan.%s.log", itinerary_stage_name((StageKind)s));
        FILE *f = fopen(path, "r");
        if (!f) continue;
        printf("\n-- %s --\n", itinerary_stage_name((StageKind)s));
        while (fgets(line, sizeof line, f)) fputs(line, stdout);
        fclose(f);
        unlink(path);
    }
}

Err plan_main(int argc, char **argv) {
    char folder[] = "/tmp/vader-plan-XXXXXX";
    Config *cfg;
    if (argc < 2) FAIL(ERR_USAGE, "usage: vader plan CONF [key=value ...]");
    TRY(config_load(&cfg, argv[1], argc - 2, (const char *const *)(argv + 2)));
    if (!mkdtemp(folder) || chdir(folder)) FAIL(ERR_IO, "%s: %s", folder, strerror(errno));
    Err err = print_plan(cfg);
    if (!err) print_tables();
    rmdir("log");
    unlink("config.yaml");
    if (!chdir("/")) rmdir(folder);
    config_free(cfg);
    return err;
}
