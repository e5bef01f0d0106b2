import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")

/** Collects all garbage now, as a process under load does at any moment. */
export const collectGarbage: () => void = runInNewContext("gc")
