#!/bin/sh
# Who may include whom, as in CONTRIBUTING.md: base knows nothing, the launcher knows no tensors, no stage
# knows another. Quoted includes are written from the root of the tree.
tests/lint/judged '*.c' '*.h' '*.cu' '*.def' | xargs grep -n '^ *# *include *"' /dev/null | awk -F: '
BEGIN {
    may["base"] = ""
    may["itinerary"] = may["config"] = may["trace"] = may["format"] = may["tensor"] = "base"
    may["transport"] = "base itinerary"
    may["model"] = "base format tensor"
    may["measure"] = "base"
    may["proc"] = "base config trace format transport itinerary"
    may["stages"] = "base config trace format tensor model transport proc itinerary"
    may["stage"] = may["stages"] " stages"
    may["tool"] = may["stage"] " measure sampler decoder rewarder learner"
    may["launch"] = "base config trace format transport proc itinerary"
}
function layer(path, part) {
    if (path ~ /^common\/proc\/itinerary\./) return "itinerary" # the names of steps, all arithmetic
    split(path, part, "/")
    if (part[1] == "common") return part[2]
    if (part[1] == "launch") return part[2] == "tool" ? "tool" : "launch"
    if (part[1] ~ /^(sampler|decoder|rewarder|learner)$/) return part[1]
    return part[1] == "tests" ? "tests" : ""
}
{
    line = $0
    sub(/^[^"]*"/, "", line)
    sub(/".*/, "", line)
    from = layer($1)
    to = layer(line)
    if (to == "") problem = "is not a path from the root of the tree"
    else if (from == "tests" || from == to) next
    else {
        row = from ~ /^(sampler|decoder|rewarder|learner)$/ ? "stage" : from
        if (!(row in may)) problem = "is in a folder that tests/lint/includes.sh does not know: " from
        else if (index(" " may[row] " ", " " to " ")) next
        else problem = "belongs to " to ", and " from " may include only: " may[row]
    }
    printf "%s:%s: \"%s\" %s\n", $1, $2, line, problem
    bad = 1
}
END { exit bad }'
