import type { Values } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import { defineCommand } from "./Command.ts"

const fleetStore = Flag.optional("store", {
  holdsSecret: "database",
  argument: "URL",
  about: "Use the store of the fleet at URL, as `sluice serve` names it: redis://host, postgres://host/name, or " +
    "sqlite:FILE. Write its password as ${NAME} of a variable. [default: SLUICE_STORE, else that of sluice.json]",
  parse: Flag.storeUrl
})

const fleetReason = Flag.optional("reason", {
  perRun: true,
  argument: "TEXT",
  about: "Say why, in 4 to 200 characters. Everyone who looks at the fleet reads it. Required for a change.",
  parse: Flag.text
})

/** Thirty days. */
const longestHoldMillis = 30 * 86_400_000
const holdMillis = Flag.duration(1_000, longestHoldMillis)

const fleetFor = Flag.optional("for", {
  perRun: true,
  argument: "TIME",
  about: "End the change after TIME: 15m, 4h, 2d, or none for no end. [default: 1h]",
  parse: (text): Flag.Read<number | null> => text === "none" ? { ok: true, value: null } : holdMillis(text)
})

export const circuits = defineCommand({
  name: "circuits",
  summary: "Show the circuits of a fleet, and change them by hand.",
  usage: "circuits ACTION [NAME] [flags]",
  about: [
    "`list` shows the circuits of all gateways and workers that share a store, and what was done by hand. `watch` " +
    "keeps showing them until Ctrl-C; piped, it prints a line for each change.",
    "`open` stops calls to the target NAME, `close` sends calls to it whatever happens, and `reset` lets its circuit " +
    "decide again. All processes follow within five seconds, and the live page of each gateway shows who did it and why."
  ],
  inputs: ["ACTION", "[NAME]"],
  flags: {
    store: fleetStore,
    reason: fleetReason,
    forMillis: fleetFor,
    unused: Flag.toggle("unused", {
      perRun: true,
      about: "Accept the whole name of a circuit that no call has used lately, such as gateway/main."
    }),
    json: Flag.toggle("json", { perRun: true, about: "Print a line of JSON for each circuit." })
  },
  notes: [
    {
      title: "Exit code",
      lines: [
        "0    done",
        "1    changed, but the store did not keep who did it",
        "2    no such circuit, or the store cannot be used"
      ]
    }
  ]
})

export type CircuitsFlags = Values<typeof circuits.flags>

/** An unused quota is forgotten after two days, with what was set by hand. */
const longestLimitMillis = 2 * 86_400_000

export const quotas = defineCommand({
  name: "quotas",
  summary: "Show what a fleet uses of its limits, and lower one.",
  usage: "quotas ACTION [NAME] [LIMIT] [flags]",
  about: [
    "`list` shows what all gateways and workers that share a store have used of each limit, and what was lowered.",
    "`set NAME LIMIT` lowers a limit of all processes for a while, such as requests/min=100, tokens/min=50k, " +
    "money/day=5 (dollars) or atOnce=8. none ends it: requests/min=none. Set it again to change it up or down.",
    "A limit above the one that a process has changes nothing: that one is in its settings, which the store does not have. " +
    "Raise it there and reload."
  ],
  inputs: ["ACTION", "[NAME]", "[LIMIT]"],
  flags: {
    store: fleetStore,
    reason: fleetReason,
    forMillis: Flag.optional("for", {
      perRun: true,
      argument: "TIME",
      about: "End the change after TIME, at most 2d: 15m, 4h. [default: 1h]",
      parse: Flag.duration(1_000, longestLimitMillis)
    }),
    json: Flag.toggle("json", { perRun: true, about: "Print a line of JSON for each limit." })
  },
  notes: [
    {
      title: "Exit code",
      lines: [
        "0    done",
        "1    changed, but the store did not keep who did it",
        "2    no such quota or limit, or the store cannot be used"
      ]
    }
  ]
})

export type QuotasFlags = Values<typeof quotas.flags>
