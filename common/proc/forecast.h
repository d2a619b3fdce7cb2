// forecast: how long an update takes, from how long each step takes.
//
// Plays a run in virtual time: itinerary, slots, replicas, versions and the order of turns are those of the real
// loop (stage.h), but a step only lets its time pass, and messages and disks take none. So the result is a bound
// of the pipeline: nothing but its own order keeps a real run from reaching it, provided that every process
// has cores of its own. Previews are left out.
//
//     ForecastSpec spec;
//     forecast_spec(&spec, cfg);
//     spec.step_s[STEP_SAMPLE] = 1.5; ...
//     Forecast f = forecast_make(&spec);
#ifndef COMMON_PROC_FORECAST_H
#define COMMON_PROC_FORECAST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config/config.h"
#include "common/proc/itinerary.h"

typedef struct ForecastSpec {
    int segments;
    bool sampler_handover;
    uint32_t rollouts, lag, slots; // at least 1, 0, 1
    int replicas[STAGE_CNT];       // at least 1 each
    double step_s[STEP_CNT + 1];   // of one segment; [STEP_CNT] is the update
} ForecastSpec;

typedef struct Forecast {
    double update_s;          // from one version to the next, once the pipeline is full
    double work_s[STAGE_CNT]; // of one update, per process; without the update itself
    StageKind bound;          // the stage with the most work per process
} Forecast;

// All but the times.
void forecast_spec(ForecastSpec *out, const Config *cfg);
Forecast forecast_make(const ForecastSpec *spec);

#endif
