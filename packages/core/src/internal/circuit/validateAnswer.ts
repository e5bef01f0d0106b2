import type { Answer, Snapshot } from "../../CircuitBreakerStore.ts"

type Fields = { readonly [field: string]: unknown }

/**
 * Whether a store's answer is well-formed. A store can be third-party code, and its data can come from another version. A wrong
 * value would refuse calls, or end them with a defect, much later.
 */
export const isAnswer = (answer: Answer): boolean =>
  isObject(answer) && typeof answer.ok === "boolean" && isSnapshot(answer.snapshot as unknown)

/** Whether a store's list of circuits is well-formed. */
export const areSnapshots = (list: ReadonlyArray<Snapshot>): boolean => Array.isArray(list) && list.every(isSnapshot)

const isSnapshot = (snapshot: unknown): boolean => {
  if (!isObject(snapshot)) return false
  const { control, evidence, generation, key, leaseMillis, now, probing } = snapshot
  return typeof key === "string" && isTime(generation) && isTime(now) && isAmount(probing) &&
    isAmount(leaseMillis) && isControl(control) && isEvidence(evidence)
}

const isControl = (control: unknown): boolean => {
  if (!isObject(control) || !isTime(control["since"]) || !isAmount(control["until"])) return false
  if (typeof control["by"] !== "string") return false
  switch (control["_tag"]) {
    case "Closed":
      return isAmount(control["openings"]) && isAmount(control["lastOpen"]) && typeof control["reason"] === "string"
    case "Open":
      return isAmount(control["openings"]) && isAmount(control["hinted"]) && isTally(control["because"])
    case "Forced":
      return isMode(control["mode"]) && typeof control["reason"] === "string"
    default:
      return false
  }
}

const isEvidence = (evidence: unknown): boolean => {
  if (!isObject(evidence)) return false
  const { ring, wheel } = evidence
  return typeof ring === "string" && !notASample.test(ring) && Array.isArray(wheel) && wheel.every(isBucket)
}

const isBucket = (bucket: unknown): boolean => isTally(bucket) && isTime(bucket["at"])

const isTally = (tally: unknown): tally is Fields =>
  isObject(tally) && isAmount(tally["calls"]) && isAmount(tally["failures"]) && isAmount(tally["slow"])

const isMode = (mode: unknown): boolean =>
  mode === "ForcedOpen" || mode === "ForcedClosed" || mode === "Disabled" || mode === "ObserveOnly"

const notASample = /[^0-Y]/

const isObject = (value: unknown): value is Fields => typeof value === "object" && value !== null

const isTime = (value: unknown): boolean => typeof value === "number" && Number.isFinite(value)

/** Infinity is an amount. */
const isAmount = (value: unknown): boolean => typeof value === "number" && value >= 0
