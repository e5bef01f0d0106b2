/** The mutants: changes of the source that each break one thing, and the tests that must notice. */
import { fileURLToPath } from "node:url"

export const root: string = fileURLToPath(new URL("../..", import.meta.url))

export interface Mutant {
  readonly name: string
  readonly breaks: string
  /** Test files, relative to the repository. */
  readonly caughtBy: ReadonlyArray<string>
  /** The source file that changes, relative to the repository. */
  readonly file: string
  /** What is replaced. It occurs once in the file. */
  readonly find: string
  readonly replace: string
}

export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "escaped-text-cut-out",
    breaks: "a text with escapes is cut out of its event without being parsed",
    caughtBy: ["packages/ai/test/internal/plainText.test.ts"],
    file: "packages/ai/src/internal/wire/template.ts",
    find: "return isPlain(text) ? text : undefined",
    replace: "return text"
  },
  {
    name: "form-by-another-field",
    breaks: "the text is cut out of another field that had the same value",
    caughtBy: ["packages/ai/test/internal/plainText.test.ts"],
    file: "packages/ai/src/internal/wire/template.ts",
    find: "if (read(`${head}${probe}${tail}`) !== probe) return",
    replace: ""
  },
  {
    name: "gateway-any-secret",
    breaks: "a gateway accepts a key by its id, whatever its secret is",
    caughtBy: ["packages/cli/test/serve/Keys.test.ts"],
    file: "packages/cli/src/serve/Keys.ts",
    find: "timingSafeEqual(hashOf(secret), key?.hash ?? noHash) ? key : undefined",
    replace: "key"
  },
  {
    name: "gateway-any-host",
    breaks: "a web page reaches a gateway by a host name of its own",
    caughtBy: ["packages/cli/test/serve/Checks.test.ts"],
    file: "packages/cli/src/serve/Checks.ts",
    find: "bare === \"localhost\" ||",
    replace: "bare.endsWith(\"localhost\") || bare.startsWith(\"localhost\") ||"
  },
  {
    name: "page-cookie-for-everything",
    breaks: "the cookie of the live page is a key for metrics and models",
    caughtBy: ["packages/cli/test/serve/events.test.ts"],
    file: "packages/cli/src/serve/Sessions.ts",
    find: "if (!isChange && (method !== \"GET\" || !url.startsWith(\"/sluice/\"))) return undefined",
    replace: "if (!isChange && method !== \"GET\" && !url.startsWith(\"/sluice/\")) return undefined"
  },
  {
    name: "page-that-does-not-read",
    breaks: "events for a live page that does not read pile up in memory",
    caughtBy: ["packages/cli/test/serve/Pages.test.ts"],
    file: "packages/cli/src/serve/Pages.ts",
    find: "if (page.writableLength > maxUnreadBytes) page.destroy()",
    replace: "if (page.destroyed) page.destroy()"
  },
  {
    name: "page-failures-left-out",
    breaks: "the live page loses a failed call among many that were answered",
    caughtBy: ["packages/cli/test/serve/Live.test.ts"],
    file: "packages/cli/src/serve/Live.ts",
    find: "if (plain >= 0) this.fresh.splice(plain, 1, call)",
    replace: ""
  },
  {
    name: "gateway-second-model",
    breaks: "a key gets a model that it may not use by a second field model",
    caughtBy: ["packages/cli/test/serve/Request.test.ts"],
    file: "packages/cli/src/serve/Request.ts",
    find: "if (depth === 1 && isBeforeColon(json, end) && JSON.parse(json.slice(at, end)) === key) count++",
    replace: "if (depth === 1 && isBeforeColon(json, end) && json.slice(at + 1, end - 1) === key) count++"
  },
  {
    name: "gateway-dots-in-paths",
    breaks: "an encoded .. in a path passes to a provider",
    caughtBy: ["packages/cli/test/serve/Checks.test.ts"],
    file: "packages/cli/src/serve/Checks.ts",
    find: "decoded = decodeURIComponent(path)",
    replace: "decoded = path; decodeURIComponent(path)"
  },
  {
    name: "gateway-key-in-the-file",
    breaks: "a target of sluice.json may have its key written out",
    caughtBy: ["packages/cli/test/serve/Gateway.test.ts"],
    file: "packages/cli/src/Gateway.ts",
    find: "typeof value === \"string\" && keyForm.test(value)\n",
    replace: "typeof value === \"string\"\n"
  },
  {
    name: "grant-taken-twice",
    breaks: "a shared store that answers at once lets a queued call take its amounts twice",
    caughtBy: ["packages/core/test/Quota.shared.test.ts"],
    file: "packages/core/src/internal/quota/shared.ts",
    find: "if (!isAsking) this.options.onRoom(account)",
    replace: "this.options.onRoom(account)"
  },
  {
    name: "grant-without-an-owner",
    breaks: "what a shared store grants to tryAcquireUnsafe stays held for ever",
    caughtBy: ["packages/core/test/Admission.quota.test.ts"],
    file: "packages/core/src/internal/admission/attempt.ts",
    find: "      permitRequest.ticket?.ended()\n      return refused\n",
    replace: "      return refused\n"
  },
  {
    name: "quota-use-of-no-number",
    breaks: "a use of NaN makes a sum NaN",
    caughtBy: ["packages/core/test/Quota.test.ts"],
    file: "packages/core/src/internal/quota/hold.ts",
    find: "used !== undefined && used >= 0 && used <= Number.MAX_SAFE_INTEGER",
    replace: "used !== undefined"
  },
  {
    name: "quota-re-ask-by-the-first-prompt",
    breaks: "a re-ask reserves its first prompt only, so a budget is exceeded",
    caughtBy: ["packages/ai/test/ResilientModel.quota.test.ts"],
    file: "packages/ai/src/internal/resilient/modelCall.ts",
    find: "this.promptLength(measure, unusable) + measure(prefill)",
    replace: "this.promptLength(measure) + measure(prefill)"
  },
  {
    name: "text-renews-no-probe",
    breaks: "the text of a slow probe does not renew its lease, so another call becomes a probe",
    caughtBy: ["packages/ai/test/TextModel.test.ts"],
    file: "packages/ai/src/internal/resilient/attemptLimits.ts",
    find: "    this.progress?.()\n",
    replace: ""
  },
  {
    name: "progress-of-inner-probe-only",
    breaks: "progress renews the lease of the innermost probe only",
    caughtBy: ["packages/core/test/Admission.test.ts"],
    file: "packages/core/src/Admission.ts",
    find: "for (let each: typeof probe | undefined = probe; each !== undefined; each = each.parent) each.progress()",
    replace: "probe.progress()"
  },
  {
    name: "budget-without-what-runs",
    breaks: "a budget admits attempts without counting those that run",
    caughtBy: ["packages/cli/test/run/Ledger.test.ts"],
    file: "packages/cli/src/run/Ledger.ts",
    find: "return this.spent + this.reserved + amount <= this.limit",
    replace: "return this.spent + amount <= this.limit"
  },
  {
    name: "turns-for-all-that-wait",
    breaks: "the deadlines of prompts begin while limits hold them back, and a stopped run waits for them",
    caughtBy: ["packages/cli/test/run/Completion.test.ts"],
    file: "packages/cli/src/run/Completion.ts",
    find: " && this.waiting < maxWaiting",
    replace: ""
  },
  {
    name: "full-by-permits-only",
    breaks: "silent attempts block a run whose calls at once are limited by the quota until their timeout",
    caughtBy: ["packages/cli/test/run/Engine.test.ts"],
    file: "packages/cli/src/run/Attempts.ts",
    find: "windowMillis === 0 && used >= limit",
    replace: "windowMillis === 0 && used > limit"
  },
  {
    name: "model-over-forgets-facts",
    breaks: "a limit of tokens reserves the longest answer so far, although a line limits its own",
    caughtBy: ["packages/cli/test/run/Limits.test.ts"],
    file: "packages/ai/src/TextModel.ts",
    find: "return facts === undefined ? { ask } : setFacts({ ask }, facts)",
    replace: "return { ask }"
  },
  {
    name: "kills-are-free",
    breaks: "each kill of a run lets it exceed its budget by the calls that ran",
    caughtBy: ["packages/cli/test/e2e/budget.test.ts"],
    file: "packages/cli/src/run/BudgetFile.ts",
    find: "return Math.max(lost, atMost - inResults)",
    replace: "return lost"
  },
  {
    name: "sent-before-the-mark",
    breaks: "a call is sent before the file beside the results covers its cost",
    caughtBy: ["packages/cli/test/run/Ledger.test.ts"],
    file: "packages/cli/src/run/Ledger.ts",
    find: "return isCovered ? undefined : Effect.callback(",
    replace: "return this.marked >= 0 ? undefined : Effect.callback("
  },
  {
    name: "unknown-use-is-free",
    breaks: "an attempt of unknown use costs nothing in a budget",
    caughtBy: ["packages/cli/test/run/Ledger.test.ts"],
    file: "packages/cli/src/run/Ledger.ts",
    find: "          ? this.mostOf(purse.prompt, target)\n          : costOf(",
    replace: "          ? 0\n          : costOf("
  },
  {
    name: "failures-are-free",
    breaks: "a failed attempt costs nothing in a budget, also if the provider had begun to answer",
    caughtBy: ["packages/cli/test/run/Ledger.test.ts"],
    file: "packages/cli/src/run/Attempts.ts",
    find: `this.money.settle(Failure.isFree(error) ? "nothing" : undefined)`,
    replace: `this.money.settle("nothing")`
  },
  {
    name: "abandoned-flight-runs-on",
    breaks: "a flight that every caller has left runs on",
    caughtBy: ["packages/core/test/Deduplicator.test.ts"],
    file: "packages/core/src/internal/dedupe/flights.ts",
    find: `    this.land(flight, "Abandoned")
    return stop(flight)`,
    replace: `    this.land(flight, "Abandoned")
    return undefined`
  },
  {
    name: "adopted-without-the-clock-shift",
    breaks: "a circuit of this process starts from a shared one with the times of the store's clock",
    caughtBy: ["packages/core/test/CircuitBreaker.storeTime.test.ts"],
    file: "packages/core/src/internal/circuit/shared.ts",
    find: "shifted(control, this.now() - now)",
    replace: "shifted(control, 0)"
  },
  {
    name: "answers-of-another-target",
    breaks: "the answer of one URL is reused for another",
    caughtBy: ["packages/cli/test/run/Cached.test.ts"],
    file: "packages/cli/src/run/Cached.ts",
    find: "`${place?.text}${place?.request(prompt)}`",
    replace: "`${place?.request(prompt)}`"
  },
  {
    name: "answers-replace-a-foreign-file",
    breaks: "a database of another program is used as a cache",
    caughtBy: ["packages/cli/test/run/AnswerStore.test.ts"],
    file: "packages/cli/src/run/AnswerStore.ts",
    find: "if (owner !== 0 || tables !== 0) throw new Foreign()",
    replace: ""
  },
  {
    name: "answers-that-are-cut-are-kept",
    breaks: "an answer that a token limit cut is kept for later runs",
    caughtBy: ["packages/cli/test/run/Cached.test.ts"],
    file: "packages/cli/src/run/Cached.ts",
    find: " || result.finish !== \"stop\"",
    replace: ""
  },
  {
    name: "answers-without-a-bound",
    breaks: "the cache of answers grows without a bound",
    caughtBy: ["packages/cli/test/run/AnswerStore.test.ts"],
    file: "packages/cli/src/run/AnswerStore.ts",
    find: "> this.options.maxBytes && this.oldest",
    replace: "> Number.POSITIVE_INFINITY && this.oldest"
  },
  {
    name: "cache-without-a-bound",
    breaks: "a deduplicator keeps every result until it expires",
    caughtBy: ["packages/core/test/millionKeys.test.ts"],
    file: "packages/core/src/internal/dedupe/flights.ts",
    find: "this.recency.size > this.options.capacity",
    replace: "this.recency.size > Number.POSITIVE_INFINITY"
  },
  {
    name: "cache-without-a-bound-of-bytes",
    breaks: "a deduplicator keeps results of any size",
    caughtBy: ["packages/core/test/Deduplicator.bytes.test.ts"],
    file: "packages/core/src/internal/dedupe/flights.ts",
    find: "this.bytes > this.options.maxBytes",
    replace: "this.bytes > Number.POSITIVE_INFINITY"
  },
  {
    name: "concurrency-keeps-its-first-cut",
    breaks: "of a burst of rejected calls only the first lowers the limit of calls at once",
    caughtBy: ["packages/core/test/Quota.concurrency.test.ts"],
    file: "packages/core/src/internal/quota/concurrency.ts",
    find: "} else this.ceiling--",
    replace: "}"
  },
  {
    name: "dead-waiter",
    breaks: "an interrupted waiter stays in the queue",
    caughtBy: ["packages/core/test/Backpressure.queue.test.ts"],
    file: "packages/core/src/internal/permits/permits.ts",
    find: `      this.abandoned++
      this.dequeue(request)
`,
    replace: `      this.abandoned++
`
  },
  {
    name: "deadline-extended-by-nesting",
    breaks: "a nested deadline extends the outer one",
    caughtBy: ["packages/core/test/Deadline.test.ts"],
    file: "packages/core/src/Deadline.ts",
    find: "return Math.min(this.outer.at, this.own.at)",
    replace: "return Math.max(this.outer.at, this.own.at)"
  },
  {
    name: "decorrelated-jitter-from-the-base",
    breaks: "decorrelated jitter grows from `baseDelay` instead of the last delay",
    caughtBy: ["packages/core/test/RetryPolicy.delays.test.ts"],
    file: "packages/core/src/internal/retry/backoff.ts",
    find: "3 * (this.previous ?? base)",
    replace: "3 * base"
  },
  {
    name: "error-on-a-span",
    breaks: `a pipeline's span holds the message of the error that a stage failed with`,
    caughtBy: ["packages/core/test/privacy.test.ts"],
    file: "packages/core/src/internal/pipeline/watch.ts",
    find: "clock.currentTimeNanosUnsafe() : 0n, shown(name, exit))",
    replace: "clock.currentTimeNanosUnsafe() : 0n, exit)"
  },
  {
    name: "escalation-forgotten",
    breaks: "a circuit that reopens right after it closed uses its first open time",
    caughtBy: ["packages/core/test/CircuitBreaker.policies.test.ts"],
    file: "packages/core/src/internal/circuit/machine.ts",
    find: "const openings = now - control.since >= control.lastOpen ? 0 : control.openings",
    replace: "const openings = 0"
  },
  {
    name: "events-bounded-by-bytes",
    breaks: "an event is too large by its bytes, although it has fewer characters",
    caughtBy: ["packages/ai/test/internal/events.test.ts"],
    file: "packages/ai/src/internal/wire/events.ts",
    find: "return size > maxSize",
    replace: "return frames.restSize > maxSize"
  },
  {
    name: "events-cut-at-any-line",
    breaks: "a second line of data becomes an event of its own",
    caughtBy: ["packages/ai/test/internal/events.test.ts"],
    file: "packages/ai/src/internal/wire/frames.ts",
    find: "if (at > this.line) {",
    replace: "if (at > this.line && this.lines < 1) {"
  },
  {
    name: "events-ignore-carriage-returns",
    breaks: "carriage returns are taken for data",
    caughtBy: ["packages/ai/test/internal/events.test.ts"],
    file: "packages/ai/src/internal/wire/frames.ts",
    find: "this.hasReturns = buffer.includes(carriageReturn)",
    replace: "this.hasReturns = false"
  },
  {
    name: "events-copied-with-every-piece",
    breaks: "an event that comes in many pieces is copied with each of them",
    caughtBy: ["packages/ai/test/internal/events.test.ts"],
    file: "packages/ai/src/internal/wire/frames.ts",
    find: "Buffer.allocUnsafe(2 * size)",
    replace: "Buffer.allocUnsafe(size)"
  },
  {
    name: "evidence-not-cleared",
    breaks: "a circuit keeps its old evidence when it moves",
    caughtBy: ["packages/core/test/CircuitBreaker.test.ts"],
    file: "packages/core/src/internal/circuit/memory.ts",
    find: `    this.main.clear()
    this.others = undefined`,
    replace: "    this.others = undefined"
  },
  {
    name: "failed-result-kept",
    breaks: "a result that a classifier calls a failure is cached",
    caughtBy: ["packages/core/test/Deduplicator.cache.test.ts"],
    file: "packages/core/src/internal/dedupe/flights.ts",
    find: "return isFailedResult(flight, exit) ? 0 : this.timeToLive(flight.key, exit)",
    replace: "return this.timeToLive(flight.key, exit)"
  },
  {
    name: "failure-kept",
    breaks: "a failure is cached like a result",
    caughtBy: ["packages/core/test/Deduplicator.cache.test.ts"],
    file: "packages/core/src/Deduplicator.ts",
    find: "return (exit) => Exit.isSuccess(exit) ? millis : 0",
    replace: "return () => millis"
  },
  {
    name: "failure-kept-by-default",
    breaks: "a failure is cached for the deduplicator's default time to live",
    caughtBy: ["packages/core/test/Deduplicator.cache.test.ts"],
    file: "packages/core/src/internal/dedupe/flights.ts",
    find: "Exit.isSuccess(exit) ? this.options.timeToLiveMillis : 0",
    replace: "this.options.timeToLiveMillis"
  },
  {
    name: "fence-dropped-in-store",
    breaks: "a memory store counts samples of an older generation",
    caughtBy: ["packages/core/test/CircuitBreakerStore.contract.test.ts"],
    file: "packages/core/src/internal/circuit/memory.ts",
    find: "const isCurrent = known.generation === request.generation",
    replace: "const isCurrent = request.generation > 0"
  },
  {
    name: "fence-dropped",
    breaks: "an outcome admitted under an older generation still counts",
    caughtBy: ["packages/core/test/CircuitBreaker.test.ts"],
    file: "packages/core/src/internal/circuit/local.ts",
    find: "const isCurrent = circuit.generation === call.generation",
    replace: "const isCurrent = true"
  },
  {
    name: "header-value-shown",
    breaks: "a wrong --header shows its value",
    caughtBy: ["packages/cli/test/run/Settings.test.ts"],
    file: "packages/cli/src/Flag.ts",
    find: `return "[masked]"`,
    replace: "return text"
  },
  {
    name: "hint-lost",
    breaks: "a late Retry-After does not lengthen an opening",
    caughtBy: ["packages/core/test/CircuitBreaker.policies.test.ts"],
    file: "packages/core/src/internal/circuit/machine.ts",
    find: "return now + forMillis > control.until + hintMarginMillis",
    replace: "return now + forMillis < 0"
  },
  {
    name: "interruption-counted-as-failure",
    breaks: "an interruption counts as a failure of the dependency",
    caughtBy: ["packages/core/test/Outcome.test.ts"],
    file: "packages/core/src/Outcome.ts",
    find: `let outcome: Outcome = ignored
`,
    replace: `let outcome: Outcome = cause.reasons.some(Cause.isInterruptReason) ? retryableFailure : ignored
`
  },
  {
    name: "interruption-kept",
    breaks: "an interruption is cached like a result",
    caughtBy: ["packages/core/test/Deduplicator.cache.test.ts"],
    file: "packages/core/src/internal/dedupe/flights.ts",
    find: "Cause.isInterruptReason(reason) || (Cause.isFailReason(reason)",
    replace: "(Cause.isFailReason(reason)"
  },
  {
    name: "jitter-past-the-cap",
    breaks: "jitter lengthens a delay past its maximum",
    caughtBy: ["packages/core/test/RetryPolicy.delays.test.ts"],
    file: "packages/core/src/internal/retry/backoff.ts",
    find: "this.previous = Math.min(shortest + spread, longest)",
    replace: "this.previous = shortest + 2 * spread"
  },
  {
    name: "joined-deltas-uncounted",
    breaks: "an error of a collected text counts joined deltas as one part",
    caughtBy: ["packages/ai/test/wireCases/ends.test.ts"],
    file: "packages/ai/src/internal/wire/eventReader.ts",
    find: "this.joined++",
    replace: "this.joined += 0"
  },
  {
    name: "key-in-a-log-line",
    breaks: `the warning about a failed store contains a circuit's key`,
    caughtBy: ["packages/core/test/privacy.test.ts"],
    file: "packages/core/src/internal/circuit/shared.ts",
    find: "this.client.request(operation, verb, isAnswer, this.leftMillis(call))",
    replace:
      `Effect.tapError(this.client.request(operation, verb, isAnswer, this.leftMillis(call)), () => Effect.logWarning("the store failed", cached.key))`
  },
  {
    name: "key-in-a-message",
    breaks: `a refusal's message contains the circuit's key, and reaches logs and spans`,
    caughtBy: ["packages/core/test/privacy.test.ts"],
    file: "packages/core/src/internal/circuit/circuitOpen.ts",
    find: "const retryAfter = Duration.format(this.retryAfter)",
    replace: "const retryAfter = `${Duration.format(this.retryAfter)} (${this.key})`"
  },
  {
    name: "late-hint-shortens-an-opening",
    breaks: "a late Retry-After shortens an opening",
    caughtBy: ["packages/core/test/traps.test.ts"],
    file: "packages/core/src/internal/circuit/machine.ts",
    find: "return now + forMillis > control.until + hintMarginMillis",
    replace: "return forMillis > 0"
  },
  {
    name: "late-hint-without-a-cap",
    breaks: "each late Retry-After moves a circuit that is open for maxOpenFor",
    caughtBy: ["packages/core/test/CircuitBreaker.halfOpen.test.ts"],
    file: "packages/core/src/internal/circuit/machine.ts",
    find: "const forMillis = Math.min(retryAfterMillis, policy.maxOpenMillis)",
    replace: "const forMillis = retryAfterMillis"
  },
  {
    name: "leaders-interruption-kills-the-flight",
    breaks: "a flight ends when its leader leaves",
    caughtBy: ["packages/core/test/Deduplicator.test.ts"],
    file: "packages/core/src/internal/dedupe/flights.ts",
    find: "flight.landing !== undefined || flight.waiters.size > 0 || flight.fiber === undefined",
    replace: "flight.landing !== undefined || flight.fiber === undefined"
  },
  {
    name: "lease-longer-by-a-clock-set-back",
    breaks: "a lease lasts longer when the clock is set back by less than the age of the opening",
    caughtBy: ["packages/core/test/CircuitBreakerStore.contract.test.ts"],
    file: "packages/core/src/internal/circuit/memory.ts",
    find: "Math.max(this.control.since, this.leasedAt) - now",
    replace: "this.control.since - now"
  },
  {
    name: "lease-not-renewed",
    breaks: "the lease of a running probe expires in a shared store",
    caughtBy: ["packages/core/test/CircuitBreaker.shared.test.ts"],
    file: "packages/core/src/internal/circuit/shared.ts",
    find: "return Effect.andThen(Effect.uninterruptible(Effect.ignore(renewed)), again)",
    replace: "return Effect.andThen(Effect.void, again)"
  },
  {
    name: "lru-evicts-a-flight",
    breaks: "a full cache evicts a running flight",
    caughtBy: ["packages/core/test/Deduplicator.cache.test.ts"],
    file: "packages/core/src/internal/dedupe/flights.ts",
    find: `    if (first !== undefined && this.recency.size > this.options.capacity) {
`,
    replace: `    if (first !== undefined && this.entries.size > this.options.capacity) {
      for (const [slot, entry] of this.entries) {
        if (entry instanceof Flight) this.entries.delete(slot)
      }
`
  },
  {
    name: "lru-evicts-an-open-circuit",
    breaks: "a full store evicts an open circuit",
    caughtBy: ["packages/core/test/CircuitBreakerStore.test.ts"],
    file: "packages/core/src/internal/circuit/memory.ts",
    find: "return isOver && circuit.probing(now) === 0",
    replace: "return isOver || !isOver || circuit.probing(now) === 0"
  },
  {
    name: "more-probes-than-slots",
    breaks: "a counted probe frees its slot, so that more probes run than the limit",
    caughtBy: ["packages/core/test/CircuitBreakerStore.test.ts"],
    file: "packages/core/src/internal/circuit/memory.ts",
    find: "live + this.evidence(window).ring.length >= limit",
    replace: "live >= limit"
  },
  {
    name: "newcomer-overtakes",
    breaks: "a call that finds a free permit overtakes the queue",
    caughtBy: ["packages/core/test/Backpressure.queue.test.ts"],
    file: "packages/core/src/internal/permits/permits.ts",
    find: " || this.isDraining || this.line.first !== undefined) return false",
    replace: " || this.isDraining) return false"
  },
  {
    name: "old-reply-replaces-a-newer",
    breaks: "the late reply to an earlier request replaces a newer snapshot",
    caughtBy: ["packages/core/test/CircuitBreaker.storeTime.test.ts"],
    file: "packages/core/src/internal/circuit/shared.ts",
    find: "if (number > cached.applied) {",
    replace: "if (number > 0) {"
  },
  {
    name: "one-failure-too-many",
    breaks: "a circuit opens one failure late",
    caughtBy: ["packages/core/test/CircuitBreaker.test.ts"],
    file: "packages/core/src/internal/circuit/machine.ts",
    find: "return sum.twentieths >= trip.failures * 20",
    replace: "return sum.twentieths > trip.failures * 20"
  },
  {
    name: "open-a-millisecond-too-long",
    breaks: "a circuit is half-open one millisecond late",
    caughtBy: ["packages/core/test/CircuitBreaker.test.ts"],
    file: "packages/core/src/internal/circuit/model.ts",
    find: `control._tag === "Open" && now >= control.until`,
    replace: `control._tag === "Open" && now > control.until`
  },
  {
    name: "ordered-first-line-waits-for-room",
    breaks: "the first line waits until the results behind it take fewer bytes, for ever",
    caughtBy: ["packages/cli/test/run/Ordered.test.ts"],
    file: "packages/cli/src/run/Ordered.ts",
    find: " || this.places[this.head]?.line === line",
    replace: ""
  },
  {
    name: "ordered-without-a-window",
    breaks: "results wait in memory without a bound while the first one stalls",
    caughtBy: ["packages/cli/test/run/Ordered.test.ts"],
    file: "packages/cli/src/run/Ordered.ts",
    find: "this.places.length - this.head < this.window.lines",
    replace: "this.places.length >= 0"
  },
  {
    name: "pace-kept-by-a-resize",
    breaks: "the `retryAfter` of a refusal is measured at the capacity before a resize",
    caughtBy: ["packages/core/test/Backpressure.pressure.test.ts"],
    file: "packages/core/src/internal/permits/limiter.ts",
    find: `        pace.reset()
        permits.resize(read)`,
    replace: "        permits.resize(read)"
  },
  {
    name: "permit-kept-by-who-queued",
    breaks: "a call that was queued keeps its permit for ever",
    caughtBy: ["packages/core/test/Backpressure.test.ts"],
    file: "packages/core/src/internal/permits/permits.ts",
    find: `      request.ticket?.ended()
      this.giveBack(request.permits)`,
    replace: `      request.ticket?.ended()`
  },
  {
    name: "permit-released-twice",
    breaks: "a call releases its permit twice",
    caughtBy: ["packages/core/test/Backpressure.test.ts"],
    file: "packages/core/src/internal/permits/permits.ts",
    find: `    this.giveBack(permits)
    if (where`,
    replace: `    this.giveBack(permits)
    this.giveBack(permits)
    if (where`
  },
  {
    name: "plain-text-ignores-fields",
    breaks: "the fields beside the text of an event are not read",
    caughtBy: ["packages/ai/test/internal/plainText.test.ts"],
    file: "packages/ai/src/internal/wire/openai/chunk.ts",
    find: `&& name !== "choices" && json[name] !== null) return undefined`,
    replace: `&& name !== "choices" && json[name] === 0) return undefined`
  },
  {
    name: "plain-text-ignores-the-choice",
    breaks: "the fields beside the delta of a choice are not read",
    caughtBy: ["packages/ai/test/internal/plainText.test.ts"],
    file: "packages/ai/src/internal/wire/openai/chunk.ts",
    find: `name !== "delta" && choice[name] !== null)`,
    replace: `name !== "delta" && choice[name] === 0)`
  },
  {
    name: "plain-text-of-any-choice",
    breaks: "the text of another choice is taken for that of the first",
    caughtBy: ["packages/ai/test/internal/plainText.test.ts"],
    file: "packages/ai/src/internal/wire/openai/chunk.ts",
    find: `|| choice["index"] !== 0) return undefined`,
    replace: `|| choice["index"] === null) return undefined`
  },
  {
    name: "plain-text-of-the-first-choice",
    breaks: "an event with two choices is read as if it had one",
    caughtBy: ["packages/ai/test/internal/plainText.test.ts"],
    file: "packages/ai/src/internal/wire/openai/chunk.ts",
    find: "|| choices.length !== 1)",
    replace: "|| choices.length === 0)"
  },
  {
    name: "probe-slot-leaked-on-defect",
    breaks: "a probe whose classifier throws keeps its slot until the lease expires",
    caughtBy: ["packages/core/test/CircuitBreaker.outcomes.test.ts"],
    file: "packages/core/src/internal/admission/attempt.ts",
    find: "return Effect.andThen(this.leave(breaker, ignored, false) ?? Effect.void, Effect.die(defect))",
    replace: "return Effect.die(defect)"
  },
  {
    name: "probe-slot-leaked-on-interruption",
    breaks: "an interrupted probe keeps its slot until the lease expires",
    caughtBy: ["packages/core/test/CircuitBreaker.interruption.test.ts"],
    file: "packages/core/src/internal/admission/attempt.ts",
    find: "return Effect.onExitPrimitive(this, (exit) => this.end(exit))",
    replace:
      `return Effect.onExitPrimitive(this, (exit) => exit._tag === "Success" ? this.settleExit(exit) : undefined)`
  },
  {
    name: "quota-forgets-what-counts",
    breaks: "a quota forgets the least recently used key, although it counts and another does not",
    caughtBy: ["packages/core/test/Quota.test.ts"],
    file: "packages/core/src/internal/quota/account.ts",
    find: "account.inUse === 0 && !account.counts(now)",
    replace: "account.inUse === 0"
  },
  {
    name: "quota-guard-of-zero",
    breaks: "a call counts from when it is sent, not from when it may arrive",
    caughtBy: ["packages/core/test/Quota.simulation.test.ts"],
    file: "packages/core/src/internal/quota/dimension.ts",
    find: "this.guardMillis = Math.min(guardMillis, windowMillis / 8)",
    replace: "this.guardMillis = 0 * guardMillis"
  },
  {
    name: "quota-money-of-an-unknown-use-returned",
    breaks: "an answer that broke off costs nothing, so a budget can be exceeded",
    caughtBy: ["packages/ai/test/ResilientModel.quota.test.ts"],
    file: "packages/ai/src/internal/resilient/targetQuota.ts",
    find: "return { tokens: input + output, inputTokens: input, outputTokens: output }",
    replace: "return { tokens: input + output, inputTokens: input, outputTokens: output, money: 0 }"
  },
  {
    name: "quota-of-a-refused-call-kept",
    breaks: "a call to a closed port counts against the quota of its target",
    caughtBy: ["packages/ai/test/ResilientModel.quotaWire.test.ts"],
    file: "packages/ai/src/internal/resilient/targetQuota.ts",
    find: "if (wasNotSent(error, this.arrivedBy !== undefined)) return reservation.refund",
    replace: ""
  },
  {
    name: "quota-of-each-target",
    breaks: "two targets of one account each use the whole limit",
    caughtBy: ["packages/ai/test/ResilientModel.quota.test.ts"],
    file: "packages/ai/src/internal/resilient/settings.ts",
    find: "if (shared !== undefined) return shared.service",
    replace: ""
  },
  {
    name: "quota-order-reversed",
    breaks: "the call that asked last starts first",
    caughtBy: ["packages/core/test/Quota.test.ts"],
    file: "packages/core/src/internal/permits/lanes.ts",
    find: "else row.requests.append(request)",
    replace: "else row.requests.prepend(request)"
  },
  {
    name: "quota-passer-waits-for-the-head",
    breaks: "a call that may pass a large one starts only when the large one may",
    caughtBy: ["packages/core/test/Quota.test.ts"],
    file: "packages/core/src/internal/permits/lanes.ts",
    find: "Math.min(wait, passersWait)",
    replace: "wait"
  },
  {
    name: "quota-refunded-twice",
    breaks: "a reservation that has ended can be given back again",
    caughtBy: ["packages/core/test/Quota.properties.test.ts"],
    file: "packages/core/src/internal/quota/hold.ts",
    find: `if (this.state !== "Reserved" && this.state !== "Begun") return false`,
    replace: `if (this.state === "Idle") return false`
  },
  {
    name: "quota-settled-after-its-window",
    breaks: "a settlement changes the sum although its bucket has left the window",
    caughtBy: ["packages/core/test/Quota.properties.test.ts"],
    file: "packages/core/src/internal/quota/counter.ts",
    find: `    if (bucket < this.oldest) return bucket
`,
    replace: ""
  },
  {
    name: "quota-wait-is-not-compared",
    breaks: "a call waits for the quota of the last target, although another has room sooner",
    caughtBy: ["packages/ai/test/ResilientModel.quota.test.ts"],
    file: "packages/ai/src/internal/resilient/candidates.ts",
    find: "seen.waiting === undefined || millis < seen.waiting.millis",
    replace: "seen.waiting === undefined || millis >= seen.waiting.millis"
  },
  {
    name: "quota-window-never-advances",
    breaks: "the amounts of a window never leave it",
    caughtBy: ["packages/core/test/Quota.properties.test.ts"],
    file: "packages/core/src/internal/quota/counter.ts",
    find: "this.leavesAt = (this.oldest + 1) * bucketMillis + windowMillis + driftMillis",
    replace: "this.leavesAt = Number.POSITIVE_INFINITY"
  },
  {
    name: "rate-above-instead-of-reached",
    breaks: "a failure rate opens the circuit only above its threshold",
    caughtBy: ["packages/core/test/CircuitBreaker.policies.test.ts"],
    file: "packages/core/src/internal/circuit/machine.ts",
    find: "share / sum.calls >= trip.rate",
    replace: "share / sum.calls > trip.rate"
  },
  {
    name: "rate-limit-without-a-window",
    breaks: "a limit in a header counts although its window is unknown",
    caughtBy: ["packages/ai/test/RateLimits.test.ts"],
    file: "packages/ai/src/RateLimits.ts",
    find: "limit === undefined ? remaining !== undefined : hasWindow",
    replace: "true"
  },
  {
    name: "redis-clock-set-back",
    breaks: "Redis keeps times in the future when its clock is set back",
    caughtBy: ["packages/redis/test/contract.test.ts"],
    file: "packages/redis/src/internal/circuitScripts.ts",
    find: `end
adjustToClock()
`,
    replace: `end
`
  },
  {
    name: "redis-fence-dropped",
    breaks: "a Redis store counts samples of an older generation",
    caughtBy: ["packages/redis/test/contract.test.ts"],
    file: "packages/redis/src/internal/circuitScripts.ts",
    find: `taken = counts == "1" and (generation == want or (want == "0" and by == ""))`,
    replace: `taken = counts == "1"`
  },
  {
    name: "redis-key-without-expiry",
    breaks: `a circuit's leases stay in Redis for ever`,
    caughtBy: ["packages/redis/test/RedisCircuitBreakerStore.expiry.test.ts"],
    file: "packages/redis/src/internal/circuitScripts.ts",
    find: `  redis.call("PEXPIRE", leases, int(known[#known] - now))
`,
    replace: ""
  },
  {
    name: "redis-more-probes-than-slots",
    breaks: "on Redis, a counted probe frees its slot, so that more probes run than the limit",
    caughtBy: ["packages/redis/test/contract.test.ts"],
    file: "packages/redis/src/internal/circuitScripts.ts",
    find: `redis.call("ZCARD", leases) + #ring < limit`,
    replace: `redis.call("ZCARD", leases) < limit`
  },
  {
    name: "refused-until-stale",
    breaks: "a process refuses until its snapshot is stale, whatever retryAfter it told",
    caughtBy: ["packages/core/test/CircuitBreaker.storeTime.test.ts"],
    file: "packages/core/src/internal/circuit/shared.ts",
    find: "const mustRead = this.now() >= cached.retryAt",
    replace: "const mustRead = false"
  },
  {
    name: "resent-after-any-reset",
    breaks: "a request is sent again whose connection was not idle",
    caughtBy: ["packages/ai/test/HttpTransport.staleSockets.test.ts"],
    file: "packages/ai/src/internal/wire/nodePost.ts",
    find: "staleSockets.has(error) ? fresh : undefined",
    replace: "error instanceof Error ? fresh : undefined"
  },
  {
    name: "retried-stream-at-the-tail",
    breaks: "a further attempt of a stream is queued behind calls that have not run yet",
    caughtBy: ["packages/core/test/Sluice.streams.test.ts"],
    file: "packages/core/src/internal/policy/policy.ts",
    find: "(n) => guardStream(call.request(n), body",
    replace: "() => guardStream(call.request(1), body"
  },
  {
    name: "retry-after-of-any-length",
    breaks: "a Retry-After is waited for, however long it is",
    caughtBy: ["packages/core/test/RetryPolicy.delays.test.ts"],
    file: "packages/core/src/internal/retry/loop.ts",
    find: `    if (retryAfterMillis > this.maxRetryAfterMillis()) return "RetryAfterTooLong"
`,
    replace: ""
  },
  {
    name: "retry-after-treated-as-cap",
    breaks: "a Retry-After is the longest delay, not the shortest",
    caughtBy: ["packages/core/test/RetryPolicy.delays.test.ts"],
    file: "packages/core/src/internal/retry/backoff.ts",
    find: "return retryAfterMillis > shortest ? retryAfterMillis + spread : this.previous",
    replace: "return retryAfterMillis > 0 ? Math.min(retryAfterMillis, this.previous) : this.previous"
  },
  {
    name: "retry-past-the-deadline",
    breaks: "a retry sleeps past the deadline",
    caughtBy: ["packages/core/test/RetryPolicy.test.ts"],
    file: "packages/core/src/internal/retry/loop.ts",
    find: "fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + delay >= deadline.at",
    replace: "fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() > deadline.at"
  },
  {
    name: "samples-with-one-request",
    breaks: "samples of a line have the same hash, so that a cache answers all of them alike",
    caughtBy: ["packages/cli/test/run/Request.test.ts"],
    file: "packages/cli/src/run/Request.ts",
    find: "...(sample === 1 ? [] : [{ sample }])",
    replace: "...[]"
  },
  {
    name: "served-when-expired",
    breaks: "a result is served at the moment it expires",
    caughtBy: ["packages/core/test/Deduplicator.cache.test.ts"],
    file: "packages/core/src/internal/dedupe/flights.ts",
    find: "if (entry.expiresAt <= this.now()) {",
    replace: "if (entry.expiresAt < this.now()) {"
  },
  {
    name: "set-without-its-size",
    breaks: "different inputs with nested sets or maps share a key",
    caughtBy: ["packages/core/test/KeyHash.test.ts"],
    file: "packages/core/src/internal/hashing/canonical.ts",
    find: `    this.byte(tag)
    this.uint32(encoded.length)`,
    replace: "    this.byte(tag)"
  },
  {
    name: "settings-file-over-variables",
    breaks: "a value of sluice.json wins over a variable",
    caughtBy: ["packages/cli/test/Sources.test.ts"],
    file: "packages/cli/src/Sources.ts",
    find: "Shell.over(environment.given, file.given)",
    replace: "Shell.over(file.given, environment.given)"
  },
  {
    name: "settings-from-the-variable-of-a-key",
    breaks: "the key of a target is read as the path of a key file",
    caughtBy: ["packages/cli/test/Sources.test.ts"],
    file: "packages/cli/src/Sources.ts",
    find: "variable.startsWith(\"SLUICE_KEY_\") ? undefined : variable",
    replace: "variable"
  },
  {
    name: "settings-model-in-place-of-targets",
    breaks: "a model alone sends the prompts to the default URL instead of the targets of sluice.json",
    caughtBy: ["packages/cli/test/Sources.test.ts"],
    file: "packages/cli/src/Sources.ts",
    find: "if (model !== undefined && target !== undefined && !(given.has(\"model\")",
    replace: "if (model === undefined && target !== undefined && !(given.has(\"model\")"
  },
  {
    name: "settings-with-a-written-secret",
    breaks: "sluice.json may have a secret in a URL",
    caughtBy: ["packages/cli/test/Sources.test.ts"],
    file: "packages/cli/src/Sources.ts",
    find: "case \"url\":\n      return UrlSecrets.hideInArgument(bare) !== bare",
    replace: "case \"url\":\n      return false"
  },
  {
    name: "shared-run-left-at-its-deadline",
    breaks:
      "the last caller of a shared run leaves at the moment of its deadline, so a dependency that hangs does not count",
    caughtBy: ["packages/core/test/clockSetBack.test.ts"],
    file: "packages/core/src/internal/policy/policy.ts",
    find: "leaveMarginMillis = 20",
    replace: "leaveMarginMillis = 0"
  },
  {
    name: "silence-broken-by-comments",
    breaks: "comments count as content of a text",
    caughtBy: ["packages/ai/test/TextModel.test.ts"],
    file: "packages/ai/src/internal/wire/collect.ts",
    find: "const content = reception.reader?.contentLength ?? 0",
    replace: "const content = length + 1"
  },
  {
    name: "silence-not-watched-after-the-first-token",
    breaks: "a text that falls silent after its beginning waits for the first-token limit",
    caughtBy: ["packages/ai/test/TextModel.test.ts"],
    file: "packages/ai/src/internal/wire/collect.ts",
    find: "if (lastAt + limits.idleMillis < firesAt) watch(limits.idleMillis)",
    replace: "if (lastAt < 0) watch(limits.idleMillis)"
  },
  {
    name: "slow-at-slow-after",
    breaks: "a call that takes exactly slowAfter counts as slow",
    caughtBy: ["packages/core/test/CircuitBreaker.halfOpen.test.ts"],
    file: "packages/core/src/internal/admission/attempt.ts",
    find: "elapsedMillis > breaker.settings.slowMillis",
    replace: "elapsedMillis >= breaker.settings.slowMillis"
  },
  {
    name: "slow-at-slow-after-in-two-steps",
    breaks: "an attempt that is settled after exactly slowAfter counts as slow",
    caughtBy: ["packages/core/test/CircuitBreaker.halfOpen.test.ts"],
    file: "packages/core/src/internal/admission/attempt.ts",
    find: "breaker.now() - this.startedAt > slowMillis",
    replace: "breaker.now() - this.startedAt >= slowMillis"
  },
  {
    name: "slow-probe-closes",
    breaks: "a probe that succeeds slowly closes a circuit that slow calls opened",
    caughtBy: ["packages/core/test/CircuitBreaker.halfOpen.test.ts"],
    file: "packages/core/src/internal/circuit/machine.ts",
    find: "mustBeQuick && slowOf(code) === 1 ? 20 : weightOf(code)",
    replace: "weightOf(code)"
  },
  {
    name: "socket-not-free-at-the-end",
    breaks: "a text ends before its connection can be used again",
    caughtBy: ["packages/ai/test/TextModel.test.ts"],
    file: "packages/ai/src/internal/wire/nodePost.ts",
    find: `message.on("end", () => process.nextTick(this.end))`,
    replace: `message.on("end", this.end)`
  },
  {
    name: "store-timeout-for-each-request",
    breaks: "each request of a call may take storeTimeout",
    caughtBy: ["packages/core/test/CircuitBreaker.storeTime.test.ts"],
    file: "packages/core/src/internal/circuit/shared.ts",
    find: "this.settings.storeTimeoutMillis - (call?.storeMillis ?? 0)",
    replace: "this.settings.storeTimeoutMillis"
  },
  {
    name: "store-without-a-bound",
    breaks: "a memory store never evicts a circuit",
    caughtBy: ["packages/core/test/millionKeys.test.ts"],
    file: "packages/core/src/internal/circuit/memory.ts",
    find: "if (this.circuits.size < this.capacity) return",
    replace: "if (this.circuits.size < Number.POSITIVE_INFINITY) return"
  },
  {
    name: "table-lines-counted-twice",
    breaks: "a CRLF in a cell of a table counts as two lines",
    caughtBy: ["packages/cli/test/run/formats.test.ts"],
    file: "packages/cli/src/run/Table.ts",
    find: "if (byte === lineFeed) this.line++",
    replace: "if (byte === lineFeed || byte === carriageReturn) this.line++"
  },
  {
    name: "tenant-left-out-of-the-key",
    breaks: "tenants share results",
    caughtBy: ["packages/core/test/KeyHash.test.ts", "packages/core/test/Deduplicator.test.ts"],
    file: "packages/core/src/internal/dedupe/requestKey.ts",
    find: "[operation, tenant, value],",
    replace: "[operation, undefined, value],"
  },
  {
    name: "throttled-probe-frees-its-slot",
    breaks: "the next probe does not wait for the Retry-After of a throttled one",
    caughtBy: ["packages/core/test/CircuitBreaker.halfOpen.test.ts"],
    file: "packages/core/src/internal/circuit/machine.ts",
    find: `const retryAfterMillis = hint?.retryAfterMillis ?? 0
`,
    replace: `const retryAfterMillis = 0
`
  },
  {
    name: "throttled-resets-the-streak",
    breaks: "a throttled call counts as a success and ends a streak of failures",
    caughtBy: ["packages/core/test/CircuitBreaker.outcomes.test.ts"],
    file: "packages/core/src/internal/circuit/circuits.ts",
    find: `    case "Success":
      return sampleCode(0, isSlow)`,
    replace: `    case "Success":
    case "Throttled":
      return sampleCode(0, isSlow)`
  },
  {
    name: "tiny-weight-is-a-success",
    breaks: "a failure whose weight is less than a twentieth counts as a success",
    caughtBy: ["packages/core/test/CircuitBreaker.halfOpen.test.ts"],
    file: "packages/core/src/internal/circuit/sample.ts",
    find: "weight > 0 ? Math.max(1, Math.round(weight * 20)) : 0",
    replace: "Math.round(weight * 20)"
  },
  {
    name: "wake-inline",
    breaks: "a waiter is resumed inside the release of the permit",
    caughtBy: ["packages/core/test/Backpressure.queue.test.ts"],
    file: "packages/core/src/internal/permits/permits.ts",
    find: "this.ready.append(request)",
    replace: "request.resume?.(request.refusal ?? request.task)"
  },
  {
    name: "window-of-one-bucket-more",
    breaks: "a window of time counts one bucket more than its own",
    caughtBy: ["packages/core/test/CircuitBreaker.halfOpen.test.ts"],
    file: "packages/core/src/internal/circuit/machine.ts",
    find: "(buckets - 1) * width",
    replace: "buckets * width"
  },
  {
    name: "quota-slice-counted-too-early",
    breaks: "a shared store counts a slice as if all of its calls were sent at once",
    caughtBy: ["packages/core/test/Quota.slices.test.ts"],
    file: "packages/core/src/internal/quota/shared.ts",
    find: "guardMillis: guardMillis + lifeMillis",
    replace: "guardMillis: 0"
  },
  {
    name: "quota-slice-never-given-back",
    breaks: "the rest of a slice stays reserved while its calls run",
    caughtBy: ["packages/core/test/Quota.slices.test.ts"],
    file: "packages/core/src/internal/quota/shared.ts",
    find: "else if (slice.rest > restShare)",
    replace: "else if (slice.rest > 2)"
  },
  {
    name: "quota-slice-used-after-its-life",
    breaks: "calls start from a slice that the store counts as over",
    caughtBy: ["packages/core/test/Quota.slices.test.ts"],
    file: "packages/core/src/internal/quota/slice.ts",
    find: "if (!this.isOpen || now >= this.until) return false",
    replace: "if (this.calls > 1e9) return false"
  },
  {
    name: "quota-outage-ignores-own-use",
    breaks: "a process takes its part anew at each outage",
    caughtBy: ["packages/core/test/Quota.outage.test.ts"],
    file: "packages/core/src/internal/quota/hold.ts",
    find: "const share = isAlone ? 1 / host.processes : 1",
    replace: "const share = isAlone ? 1 : 1"
  },
  {
    name: "quota-outage-use-is-lost",
    breaks: "the use during an outage of the store is never recorded",
    caughtBy: ["packages/core/test/Quota.outage.test.ts"],
    file: "packages/core/src/internal/quota/shared.ts",
    find: "this.fork(Effect.andThen(ping, this.record),",
    replace: "this.fork(ping,"
  },
  {
    name: "quota-local-calls-not-adopted",
    breaks: "calls that began during an outage never count at once in the store",
    caughtBy: ["packages/core/test/Quota.outage.test.ts"],
    file: "packages/core/src/internal/quota/shared.ts",
    find: "for (const hold of local) this.adopt(hold)",
    replace: ""
  },
  {
    name: "quota-lost-reply-repeated-with-a-new-id",
    breaks: "a reply of the store that is lost counts as an outage",
    caughtBy: ["packages/core/test/Quota.outage.test.ts"],
    file: "packages/core/src/internal/quota/shared.ts",
    find: "Effect.retry(Effect.suspend(() => this.options.store.reserve(request)), { times: 1 })",
    replace: "this.options.store.reserve(request)"
  },
  {
    name: "quota-recovers-in-each-process",
    breaks: "a limit that is shared rises from the time at which each process hears of it",
    caughtBy: ["packages/core/test/Quota.ceilings.test.ts"],
    file: "packages/core/src/internal/quota/ceilings.ts",
    find: "this.follow(dimension, now, limit, now - ageMillis)",
    replace: "this.follow(dimension, now, limit, now)"
  },
  {
    name: "quota-rest-not-shared",
    breaks: "other processes do not keep the Retry-After",
    caughtBy: ["packages/core/test/Quota.ceilings.test.ts"],
    file: "packages/core/src/internal/quota/ceilings.ts",
    find: "if (restMillis === 0 || now",
    replace: "if (restMillis >= 0 || now"
  },
  {
    name: "quota-cut-by-own-use",
    breaks: "a rejected call lowers the limit to the use of one process",
    caughtBy: ["packages/core/test/Quota.ceilings.test.ts"],
    file: "packages/core/src/internal/quota/dimension.ts",
    find: "this.limit.cut(this.used(now))",
    replace: "this.limit.cut(this.usedHere(now))"
  },
  {
    name: "sql-fence-dropped",
    breaks: "a Postgres store counts samples of an older generation",
    caughtBy: ["packages/sql/test/circuitContract.test.ts"],
    file: "packages/sql/src/internal/circuit/functions.ts",
    find: "c.counts = 1 AND (c.generation = want OR (want = 0 AND c.moved_by = ''))",
    replace: "c.counts = 1"
  },
  {
    name: "sql-lock-dropped",
    breaks: "two processes get the same probe slot of Postgres",
    caughtBy: ["packages/sql/test/circuitContract.test.ts"],
    file: "packages/sql/src/internal/circuit/functions.ts",
    find: `  PERFORM set_config('synchronous_commit', 'off', true);
  SELECT * INTO c FROM sluice_circuits WHERE key = k FOR NO KEY UPDATE;`,
    replace: "  SELECT * INTO c FROM sluice_circuits WHERE key = k;"
  },
  {
    name: "sql-caller-transaction",
    breaks: "a rollback of the caller undoes what its calls recorded",
    caughtBy: ["packages/sql/test/SqlStores.test.ts"],
    file: "packages/sql/src/internal/session.ts",
    find: "Context.add(omitTransaction(context), References.TracerEnabled, false)",
    replace: "Context.add(context, References.TracerEnabled, false)"
  },
  {
    name: "sql-quota-settled-after-its-window",
    breaks: "on Postgres a settlement of an amount that has left its window makes the sum negative",
    caughtBy: ["packages/sql/test/SqlStores.test.ts"],
    file: "packages/sql/src/internal/quota/functions.ts",
    find: "(a.bucket IS NULL OR a.bucket >= s.oldest)",
    replace: "true"
  },
  {
    name: "sql-quota-target-not-locked",
    breaks: "concurrent requests for a quota on Postgres get more than its limit",
    caughtBy: ["packages/sql/test/quotaContract.test.ts"],
    file: "packages/sql/src/internal/quota/functions.ts",
    find: "SELECT * INTO q FROM sluice_quotas WHERE target = t FOR NO KEY UPDATE;",
    replace: "SELECT * INTO q FROM sluice_quotas WHERE target = t;"
  },
  {
    name: "sqlite-lease-alive-again",
    breaks: "a lease that has ended is alive again after the clock was set back",
    caughtBy: ["packages/sql/test/circuitContract.test.ts"],
    file: "packages/sql/src/internal/circuit/rows.ts",
    find: "Math.max(since, leased) > now || [...leases.values()].some((at) => at <= now)",
    replace: "Math.max(since, leased) > now"
  },
  {
    name: "sql-waits-for-a-frozen-server",
    breaks: "a call waits until a frozen Postgres has cancelled a statement",
    caughtBy: ["packages/sql/test/faults.test.ts"],
    file: "packages/sql/src/internal/session.ts",
    find: "dialect === \"pg\" ? leavable(outside) : outside",
    replace: "outside"
  },
  {
    name: "redis-quota-lasts-longer-after-set-back",
    breaks: "windows and leases last longer after the clock of Redis is set back",
    caughtBy: ["packages/redis/test/RedisQuotaStore.test.ts"],
    file: "packages/redis/src/internal/quotaScripts.ts",
    find: `    now = at
`,
    replace: ""
  },
  {
    name: "redis-quota-settled-after-its-window",
    breaks: "a settlement of an amount that has left its window makes the sum negative",
    caughtBy: ["packages/redis/test/RedisQuotaStore.test.ts"],
    file: "packages/redis/src/internal/quotaScripts.ts",
    find: "elseif tonumber(bucket) >= lo then",
    replace: "else"
  },
  {
    name: "batch-writes-on-after-an-error",
    breaks: "lines that are queued while a write fails are written after it",
    caughtBy: ["packages/cli/test/run/Batch.test.ts"],
    file: "packages/cli/src/run/Batch.ts",
    find: "      if (error !== undefined) this.refuse(error)\n",
    replace: ""
  },
  {
    name: "end-of-a-run-does-not-wait-for-its-results",
    breaks: "a run that is interrupted forgets results that are being written",
    caughtBy: ["packages/cli/test/run/Completion.test.ts"],
    file: "packages/cli/src/run/Completion.ts",
    find: "Effect.andThen(Fiber.interruptAll(fibers), this.sink.settled)",
    replace: "Fiber.interruptAll(fibers)"
  },
  {
    name: "error-of-the-input-interrupts",
    breaks: "an error in the input interrupts calls that run, and their answers are paid for and lost",
    caughtBy: ["packages/cli/test/run/Completion.test.ts"],
    file: "packages/cli/src/run/Completion.ts",
    find: "!this.isOver) this.fail(exit)",
    replace: "!this.isOver) this.finish(exit)"
  },
  {
    name: "line-across-chunks-not-copied",
    breaks: "a line that begins in one chunk of a file ends with bytes of the next one",
    caughtBy: ["packages/cli/test/run/Lines.test.ts"],
    file: "packages/cli/src/run/Lines.ts",
    find: "new Uint8Array(chunk.subarray(start))",
    replace: "chunk.subarray(start)"
  },
  {
    name: "front-error-event-then-broken",
    breaks: "the connection breaks after the error event, so that clients report the connection",
    caughtBy: ["packages/ai/test/front/clients.test.ts"],
    file: "packages/ai/src/internal/front/call.ts",
    find:
      "this.end(translated === undefined || wire === undefined ? errorEnding(guard, words) : errorEvent(wire, words))",
    replace: "this.write(errorEnding(guard, words)); this.over(); this.sink.abort()"
  },
  {
    name: "front-retries-of-people",
    breaks: "a request that a person sends again counts as a retry of a client",
    caughtBy: ["packages/ai/test/front/clientRetries.test.ts"],
    file: "packages/ai/src/internal/front/clientRetries.ts",
    find: "now - failure.at < windowMillis && ",
    replace: ""
  },
  {
    name: "front-line-end-of-two-pieces",
    breaks: "a carriage return and a line feed in two pieces of a stream count as two line ends",
    caughtBy: ["packages/ai/test/front/guard.fuzz.test.ts"],
    file: "packages/ai/src/internal/wire/frames.ts",
    find: "if (after === bytes.length) this.isReturned = true",
    replace: "if (after === bytes.length) this.isReturned = false"
  },
  {
    name: "front-memory-of-passed-bytes-reused",
    breaks: "bytes that were passed on are overwritten by the next ones",
    caughtBy: ["packages/ai/test/front/guard.fuzz.test.ts"],
    file: "packages/ai/src/internal/wire/frames.ts",
    find: "if (start > 0 || this.heldSize === 0) {",
    replace: "if (this.held.length < size) {"
  },
  {
    name: "front-large-event-has-no-bound",
    breaks: "an event that never ends is kept without a bound",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/guard.ts",
    find: "if (frames.restSize > this.maxEventBytes) this.failTooLarge()",
    replace: ""
  },
  {
    name: "front-done-of-a-cut-answer",
    breaks: "`[DONE]` without a finish reason is passed on, which clients take for a whole answer",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/rules.ts",
    find: `if (!this.isComplete) this.failure = { _tag: "Unfinished" }
    return this.isComplete`,
    replace: "return true"
  },
  {
    name: "front-late-error-spoils-the-answer",
    breaks: "an error after the end fails a complete answer",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/guard.ts",
    find: "if (rules.failure !== undefined && wasComplete) {",
    replace: "if (rules.failure !== undefined && wasComplete && rules.isOver) {"
  },
  {
    name: "front-unnamed-event-of-anthropic",
    breaks: "an event without the name that Anthropic's clients need is passed on without one",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/guard.ts",
    find: "this.missing = `event: ${type}\\n`",
    replace: "this.missing = undefined"
  },
  {
    name: "front-half-an-event-not-noticed",
    breaks: "an answer is complete although the stream was lost within more text",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/guard.ts",
    find: `      rules.isComplete = false
      return undefined`,
    replace: "      return undefined"
  },
  {
    name: "front-error-that-clients-do-not-raise",
    breaks: "an answer ends with an error of the provider on which clients raise none",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/guard.ts",
    find: "failure?._tag === \"Error\" && failure.isRaised) return failedEvent",
    replace: "failure?._tag === \"Error\") return failedEvent"
  },
  {
    name: "front-only-the-first-finish-reason",
    breaks: "the finish reason of the second choice of an event is not seen",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/chat.ts",
    find: "at = data.indexOf(finishReasonEnd, at)) {",
    replace: "at = -1) {"
  },
  {
    name: "front-choice-never-seen",
    breaks: "an answer is complete without the end of a choice that began late",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/chat.ts",
    find: "this.hasFinishReason || this.finished.size < this.choices",
    replace: "this.hasFinishReason"
  },
  {
    name: "front-text-after-the-finish-reason",
    breaks: "text after a finish reason does not make the answer incomplete again",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/chat.ts",
    find: "if (this.hasFinishReason || this.finished.size < this.choices) return false",
    replace: "if (this.finished.size < this.choices) return false"
  },
  {
    name: "front-finish-reason-with-each-piece",
    breaks: "the second finish reason of a server that sends one with each piece counts as the end",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/chat.ts",
    find: "if (hasOutput && wasFinished) this.wasReopened = true",
    replace: ""
  },
  {
    name: "front-counts-beside-a-choice-dropped",
    breaks: "an event with token counts is left out although the client asked for them",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/chat.ts",
    find: "return !(this.dropUsage && Json.isObject(json[\"usage\"]))",
    replace: "return !Json.isObject(json[\"usage\"])"
  },
  {
    name: "front-empty-delta-is-output",
    breaks: "an empty delta commits the front to a target",
    caughtBy: ["packages/ai/test/front/guard.test.ts"],
    file: "packages/ai/src/internal/front/rules.ts",
    find: "value === null || value === undefined || value === \"\" || value === false ||",
    replace: "value === null || value === undefined || value === false ||"
  },
  {
    name: "front-first-of-two-models",
    breaks: "the first of two fields with the same key counts",
    caughtBy: ["packages/ai/test/front/body.test.ts"],
    file: "packages/ai/src/internal/front/body.ts",
    find: "ranges.get(key)?.at(-1)",
    replace: "ranges.get(key)?.at(0)"
  },
  {
    name: "front-second-model-stays",
    breaks: "only one of two fields with the same key is replaced",
    caughtBy: ["packages/ai/test/front/body.test.ts"],
    file: "packages/ai/src/internal/front/body.ts",
    find: "for (const [from, to] of own) {",
    replace: "for (const [from, to] of own.slice(-1)) {"
  },
  {
    name: "front-escaped-key-not-read",
    breaks: "a key with an escaped character is not found",
    caughtBy: ["packages/ai/test/front/body.test.ts"],
    file: "packages/ai/src/internal/front/body.ts",
    find: "if (!text.includes(\"\\\\\")) return text.slice(1, -1)",
    replace: "if (text !== \"\") return text.slice(1, -1)"
  },
  {
    name: "front-escaped-backslash-hides-a-quote",
    breaks: "a quote after two backslashes does not end a string",
    caughtBy: ["packages/ai/test/front/body.test.ts"],
    file: "packages/ai/src/internal/front/body.ts",
    find: "if ((found - before) % 2 === 0) return found + 1",
    replace: "if (before === found) return found + 1"
  },
  {
    name: "front-second-object-of-a-body",
    breaks: "text after the JSON object of a body is ignored",
    caughtBy: ["packages/ai/test/front/body.test.ts"],
    file: "packages/ai/src/internal/front/body.ts",
    find: `if (bytes[at] === closeBrace) return isEnd(bytes, at + 1) ? ranges : undefined
    if (bytes[at] !== comma)`,
    replace: `if (bytes[at] === closeBrace) return ranges
    if (bytes[at] !== comma)`
  },
  {
    name: "front-header-of-the-connection-passed-on",
    breaks: "a header that the connection names is passed on",
    caughtBy: ["packages/ai/test/front/headers.test.ts"],
    file: "packages/ai/src/internal/front/headers.ts",
    find: "dropped.has(name) || named.has(name)",
    replace: "dropped.has(name)"
  },
  {
    name: "front-target-header-replaced-by-the-client",
    breaks: "a client's header replaces that of the target",
    caughtBy: ["packages/ai/test/front/headers.test.ts"],
    file: "packages/ai/src/internal/front/headers.ts",
    find: `sent["accept-encoding"] = "identity"
  return Object.assign(sent, own)`,
    replace: `sent["accept-encoding"] = "identity"
  return Object.assign({}, own, sent)`
  },
  {
    name: "front-web-pages-may-read-answers",
    breaks: "the provider's CORS headers let any web page read answers",
    caughtBy: ["packages/ai/test/front/headers.test.ts"],
    file: "packages/ai/src/internal/front/headers.ts",
    find: "const ofProviderPrefixes = [\"access-control-\", ",
    replace: "const ofProviderPrefixes = ["
  },
  {
    name: "front-two-content-lengths",
    breaks: "a request with two lengths is accepted",
    caughtBy: ["packages/ai/test/front/headers.test.ts"],
    file: "packages/ai/src/internal/front/headers.ts",
    find: "typeof length !== \"string\" || !/^\\d+$/.test(length)",
    replace: "typeof length !== \"string\" && !/^\\d+$/.test(length[0] ?? \"\")"
  },
  {
    name: "front-dot-segments-pass",
    breaks: "dot segments reach the provider",
    caughtBy: ["packages/ai/test/front/route.test.ts"],
    file: "packages/ai/src/internal/front/route.ts",
    find: " && each !== \"..\"",
    replace: ""
  },
  {
    name: "front-path-of-an-api-by-its-end-alone",
    breaks: "messages of a thread of OpenAI go to Anthropic",
    caughtBy: ["packages/ai/test/front/route.test.ts"],
    file: "packages/ai/src/internal/front/route.ts",
    find: "operations.find(([each]) => each === suffix)",
    replace: "operations.find(([each]) => suffix.endsWith(each))"
  },
  {
    name: "front-key-in-the-query-passed-on",
    breaks: "the client's key in the query reaches the provider",
    caughtBy: ["packages/ai/test/front/route.test.ts"],
    file: "packages/ai/src/internal/front/route.ts",
    find: "nameOf(parameter).toLowerCase() !== \"key\"",
    replace: "nameOf(parameter) !== \"\""
  },
  {
    name: "front-wait-that-clients-ignore",
    breaks: "a wait is longer than official clients obey",
    caughtBy: ["packages/ai/test/front/refusal.test.ts"],
    file: "packages/ai/src/internal/front/refusal.ts",
    find: "String(Math.min(longestWait, seconds))",
    replace: "String(seconds)"
  },
  {
    name: "front-retry-of-a-long-wait",
    breaks: "clients retry at once if the wait is too long for them",
    caughtBy: ["packages/ai/test/front/refusal.test.ts"],
    file: "packages/ai/src/internal/front/refusal.ts",
    find: "return isTooLong ? false : undefined",
    replace: "return undefined"
  },
  {
    name: "front-credential-error-passed-on",
    breaks: "the provider's refusal of our key reaches the client",
    caughtBy: ["packages/ai/test/front/refusal.test.ts"],
    file: "packages/ai/src/internal/front/refusal.ts",
    find: "if (status < 400 || status === 401 ||",
    replace: "if (status < 400 ||"
  },
  {
    name: "translated-call-without-arguments",
    breaks: "a translated tool call without arguments has arguments that are no JSON",
    caughtBy: ["packages/ai/test/front/translate.streams.test.ts"],
    file: "packages/ai/src/internal/front/translate/streamToChat.ts",
    find: "Event.inputOf(block[\"input\"]) ?? \"{}\"",
    replace: "Event.inputOf(block[\"input\"]) ?? \"\""
  },
  {
    name: "translated-calls-are-interleaved",
    breaks: "a tool call is closed before its arguments are whole",
    caughtBy: ["packages/ai/test/front/translate.streams.test.ts"],
    file: "packages/ai/src/internal/front/translate/toolBlocks.ts",
    find: "if (this.open?.isWhole === false) return",
    replace: ""
  },
  {
    name: "translated-calls-end-as-a-text",
    breaks: "a translated answer with tool calls ends as if it had none",
    caughtBy: ["packages/ai/test/front/translate.answers.test.ts", "packages/ai/test/front/translate.streams.test.ts"],
    file: "packages/ai/src/internal/front/translate/endings.ts",
    find: "hasCalls && (ending",
    replace: "!hasCalls && (ending"
  },
  {
    name: "translated-calls-twice",
    breaks: "a tool call that a server repeats has its arguments twice",
    caughtBy: ["packages/ai/test/front/translate.streams.test.ts"],
    file: "packages/ai/src/internal/front/translate/toolBlocks.ts",
    find: "this.isWhole || (this.depth",
    replace: "this.isWhole === undefined || (this.depth"
  },
  {
    name: "translated-chat-without-an-end",
    breaks: "a cut stream of chat completions looks complete as messages",
    caughtBy: ["packages/ai/test/front/translate.streams.test.ts"],
    file: "packages/ai/src/internal/front/translate/streamToMessages.ts",
    find: "if (this.ending === undefined || this.hasEnded",
    replace: "if ((this.ending ??= \"stop\") === \"error\" || this.hasEnded"
  },
  {
    name: "translated-deep-events",
    breaks: "a deeply nested event of a provider throws",
    caughtBy: ["packages/ai/test/front/translate.streams.test.ts"],
    file: "packages/ai/src/internal/front/translate/events.ts",
    find: "data.length >= shortLength",
    replace: "data.length < 0"
  },
  {
    name: "translated-fields-are-dropped",
    breaks: "a field of a request without an equivalent is dropped",
    caughtBy: ["packages/ai/test/front/translate.requests.test.ts"],
    file: "packages/ai/src/internal/front/translate/level.ts",
    find: "rule === undefined || !rule.some",
    replace: "rule !== undefined && !rule.some"
  },
  {
    name: "translated-long-numbers",
    breaks: "long numbers of a translated request are rounded",
    caughtBy: ["packages/ai/test/front/translate.requests.test.ts", "packages/ai/test/front/translate.answers.test.ts"],
    file: "packages/ai/src/internal/front/translate/exactJson.ts",
    find: "rawJSON === undefined || !longNumber",
    replace: "rawJSON !== undefined || !longNumber"
  },
  {
    name: "translated-messages-without-an-end",
    breaks: "a cut stream of messages looks complete as chat completions",
    caughtBy: ["packages/ai/test/front/translate.streams.test.ts"],
    file: "packages/ai/src/internal/front/translate/streamToChat.ts",
    find: "if (!this.hasFinished || this.hasEnded",
    replace: "if (this.hasEnded"
  },
  {
    name: "translated-results-after-texts",
    breaks: "results of tools that follow other content change their place",
    caughtBy: ["packages/ai/test/front/translate.requests.test.ts"],
    file: "packages/ai/src/internal/front/translate/requestToChat.ts",
    find: "if (parts.length > 0) refuse(here",
    replace: "if (parts.length < 0) refuse(here"
  },
  {
    name: "translated-signed-thoughts",
    breaks: "signed thoughts are sent to servers of chat completions",
    caughtBy: ["packages/ai/test/front/translate.requests.test.ts"],
    file: "packages/ai/src/internal/front/translate/requestToChat.ts",
    find: "if (signature === \"\" && options",
    replace: "if (signature !== undefined && options"
  },
  {
    name: "translated-usage-without-the-cache",
    breaks: "tokens that were written to a cache are missing from the translated prompt",
    caughtBy: ["packages/ai/test/front/translate.answers.test.ts"],
    file: "packages/ai/src/internal/front/translate/usage.ts",
    find: "input + cacheRead + cacheWrite",
    replace: "input + cacheRead"
  },
  {
    name: "front-calls-for-a-client-that-left",
    breaks: "a client that left while its request was read is called for, and the call stays held",
    caughtBy: ["packages/ai/test/front/streams.test.ts"],
    file: "packages/ai/src/internal/front/call.ts",
    find: "    // It may have left already.\n    if (this.isOver) return\n",
    replace: ""
  },
  {
    name: "front-output-sent-with-its-failure",
    breaks: "output that fails in the same piece reaches the client, and cannot be retried",
    caughtBy: ["packages/ai/test/front/streams.test.ts"],
    file: "packages/ai/src/internal/front/relay.ts",
    find: "    if (guard.failure !== undefined && !this.isOpen) return this.broken(guard)\n",
    replace: ""
  },
  {
    name: "front-slow-client-counts-as-silence",
    breaks: "a slow client ends its own answer as if the provider were silent",
    caughtBy: ["packages/ai/test/front/options.test.ts"],
    file: "packages/ai/src/internal/front/relay.ts",
    find: "    if (this.isPaused) return Number.POSITIVE_INFINITY\n",
    replace: ""
  },
  {
    name: "front-waits-idle-limit-after-the-end",
    breaks: "a complete answer waits for its end as long as for more output",
    caughtBy: ["packages/ai/test/front/streams.test.ts"],
    file: "packages/ai/src/internal/front/relay.ts",
    find: "    if (this.completeAt !== undefined) return this.completeAt + endingMillis\n",
    replace: ""
  },
  {
    name: "front-closes-every-connection",
    breaks: "a stream that is over closes its connection, so that none is used again",
    caughtBy: ["packages/ai/test/front/streams.test.ts"],
    file: "packages/ai/src/internal/front/relay.ts",
    find: "    if (isInOrder) this.cancel",
    replace: "    if (!isInOrder) this.cancel"
  },
  {
    name: "front-whole-answers-live",
    breaks: "a stream that is to be whole reaches the client at its first output",
    caughtBy: ["packages/ai/test/front/options.test.ts"],
    file: "packages/ai/src/internal/front/relay.ts",
    find: "((splicer ?? guard).hasOutput && !holdsAll)",
    replace: "(splicer ?? guard).hasOutput"
  },
  {
    name: "front-continues-twice-begun",
    breaks: "a stream that goes on at another target has a second beginning",
    caughtBy: ["packages/ai/test/front/continue.test.ts"],
    file: "packages/ai/src/internal/front/continuation.ts",
    find: "this.isOther(event) ? [this.write(event)] : []",
    replace: "[this.write(event)]"
  },
  {
    name: "front-continues-with-the-same-key",
    breaks: "the request that continues a stream has the idempotency key of the first one",
    caughtBy: ["packages/ai/test/front/continue.test.ts"],
    file: "packages/ai/src/internal/front/call.ts",
    find: "this.partial === undefined ? call.key : `${call.key}-${call.attempts}`",
    replace: "call.key"
  },
  {
    name: "front-shows-a-repetition",
    breaks: "the client gets the beginning twice of a target that repeats it",
    caughtBy: ["packages/ai/test/front/continue.test.ts"],
    file: "packages/ai/src/internal/front/continuation.ts",
    find: "parts.flatMap((part) => this.following.next(part)).flatMap(",
    replace: "parts.flatMap("
  },
  {
    name: "front-retries-a-delete",
    breaks: "a request that may have done its work is sent again",
    caughtBy: ["packages/ai/test/front/calls.test.ts"],
    file: "packages/ai/src/internal/front/pass.ts",
    find: "!isIdempotent(method) || ",
    replace: ""
  },
  {
    name: "front-asks-another-account-for-files",
    breaks: "a request for a file goes to an account that has other files",
    caughtBy: ["packages/ai/test/front/calls.test.ts"],
    file: "packages/ai/src/internal/front/pass.ts",
    find: "fitting.filter(({ credential }) => credential === first.credential)",
    replace: "fitting"
  },
  {
    name: "front-ignores-weights-of-routes",
    breaks: "the targets of a route share its calls equally, whatever its weights",
    caughtBy: ["packages/ai/test/front/calls.test.ts"],
    file: "packages/ai/src/internal/front/models.ts",
    find: "ticket: ticket(weight, random)",
    replace: "ticket: ticket(1, random)"
  },
  {
    name: "serve-counts-shared-calls-twice",
    breaks: "a client that joined the call of another one counts its use again",
    caughtBy: ["packages/cli/test/serve/dedupe.test.ts"],
    file: "packages/cli/src/serve/Calls.ts",
    find: "const own = this.isShared ? undefined : log",
    replace: "const own = log"
  },
  {
    name: "serve-ends-with-its-log",
    breaks: "a full disk of the log, or a reader of it that has gone, ends the gateway",
    caughtBy: ["packages/cli/test/serve/logs.test.ts"],
    file: "packages/cli/src/bin.ts",
    find: "for (const output of [process.stdout, process.stderr]) output.on(\"error\", () => {})",
    replace: ""
  },
  {
    name: "front-held-without-a-bound",
    breaks: "a held answer of any size is kept in memory",
    caughtBy: ["packages/ai/test/front/options.test.ts"],
    file: "packages/ai/src/internal/front/relay.ts",
    find: " || this.heldBytes > maxHeldBytes) this.open()",
    replace: ") this.open()"
  },
  {
    name: "front-left-upstream-runs-on",
    breaks: "a client that leaves an open answer does not close the provider's connection",
    caughtBy: ["packages/ai/test/front/calls.test.ts"],
    file: "packages/ai/src/internal/front/call.ts",
    find: "    if (this.isOpen) this.relay?.left()\n    else this.fiber",
    replace: "    if (!this.isOpen) this.fiber"
  },
  {
    name: "front-left-attempt-keeps-its-permit",
    breaks: "an attempt whose client left keeps its permit",
    caughtBy: ["packages/ai/test/front/calls.test.ts"],
    file: "packages/ai/src/internal/resilient/heldAttempt.ts",
    find: "    this.call.left()\n    this.run(this.settle(Exit.interrupt()))",
    replace: "    this.call.left()\n    this.isSettled = true"
  },
  {
    name: "front-state-at-another-account",
    breaks: "a request that depends on what a provider keeps goes to another account",
    caughtBy: ["packages/ai/test/front/calls.test.ts"],
    file: "packages/ai/src/internal/front/call.ts",
    find: "offering.filter(({ credential }) => credential === first.credential)",
    replace: "offering"
  },
  {
    name: "front-shortest-pattern-first",
    breaks: "a model goes to the targets of a shorter pattern",
    caughtBy: ["packages/ai/test/front/calls.test.ts"],
    file: "packages/ai/src/internal/front/models.ts",
    find: "([a], [b]) => b.length - a.length",
    replace: "([a], [b]) => a.length - b.length"
  },
  {
    name: "front-untranslatable-is-asked",
    breaks: "a request that a target has no equal for is sent to it",
    caughtBy: ["packages/ai/test/front/translation.test.ts"],
    file: "packages/ai/src/internal/resilient/candidates.ts",
    find: "    if (!this.accepts(target)) {",
    replace: "    if (!this.accepts(target) && usable.length < 0) {"
  },
  {
    name: "front-shares-between-keys",
    breaks: "clients with different keys share an answer",
    caughtBy: ["packages/ai/test/front/shared.test.ts"],
    file: "packages/ai/src/internal/front/shared.ts",
    find: "name === \"authorization\" || ",
    replace: ""
  },
  {
    name: "front-pass-cut-looks-whole",
    breaks: "a cut within a passed response looks like its end",
    caughtBy: ["packages/ai/test/front/calls.test.ts"],
    file: "packages/ai/src/internal/front/pass.ts",
    find: "    this.over()\n    this.sink.abort()",
    replace: "    this.over()\n    this.sink.end()"
  },
  {
    name: "flights-late-leader-in-redis",
    breaks: "a leader whose lease has lapsed replaces the result of its successor in Redis",
    caughtBy: ["packages/redis/test/RedisFlightStore.test.ts"],
    file: "packages/redis/src/internal/flightScripts.ts",
    find: "if done == generation then return 1 end\nif ends <= now then return 0 end",
    replace: "if done == generation then return 1 end"
  },
  {
    name: "flights-late-leader-in-sql",
    breaks: "a leader whose lease has lapsed stores its result in a database",
    caughtBy: ["packages/sql/test/flightContract.test.ts"],
    file: "packages/sql/src/internal/flight/statements.ts",
    find: "WHERE key = $1 AND id = $2 AND ends > micros / 1000`\n  ))\n  const wasCompleted",
    replace: "WHERE key = $1 AND id = $2 AND ends > 0`\n  ))\n  const wasCompleted"
  },
  {
    name: "flights-renewal-after-set-back-in-sql",
    breaks: "an earlier result in a database lasts longer if a lease is renewed after the clock was set back",
    caughtBy: ["packages/sql/test/flightContract.test.ts"],
    file: "packages/sql/src/internal/flight/statements.ts",
    find: "      fresh = fresh - ${renewedBehind}, kept = kept - ${renewedBehind},\n",
    replace: ""
  },
  {
    name: "sqlite-deleted-file",
    breaks: "a process goes on with a file of SQLite that was deleted or replaced",
    caughtBy: ["packages/sql/test/SqlDatabase.test.ts"],
    file: "packages/sql/src/internal/sqliteClient.ts",
    find: "(this.filename === inMemory || this.opened.id === this.id())",
    replace: "true"
  },
  {
    name: "sqlite-locks-of-another-client",
    breaks: "a second client of a process ends the locks of the first on a file of SQLite",
    caughtBy: ["packages/sql/test/SqlDatabase.test.ts"],
    file: "packages/sql/src/internal/sqliteClient.ts",
    find: "openSync(filename, \"ax\", 0o600)",
    replace: "openSync(filename, \"a\", 0o600)"
  },
  {
    name: "flights-earlier-result-in-sql",
    breaks: "a follower gets the result of an earlier flight from a database",
    caughtBy: ["packages/sql/test/flightContract.test.ts"],
    file: "packages/sql/src/internal/flight/statements.ts",
    find: "if (fresh > seen || (following >= 0 && done >= following && kept > seen)) {",
    replace: "if (fresh > seen || (following >= 0 && kept > seen)) {"
  },
  {
    name: "flights-memory-lease-after-set-back",
    breaks: "a lease lasts longer after the clock is set back",
    caughtBy: ["packages/core/test/FlightStore.contract.test.ts"],
    file: "packages/core/src/internal/dedupe/memory.ts",
    find: "  entry.leaseUntil -= behind\n",
    replace: ""
  },
  {
    name: "flights-leader-leaves-no-release",
    breaks: "a process that interrupts its call keeps the lease, and the others wait until it lapses",
    caughtBy: ["packages/core/test/Deduplicator.shared.test.ts"],
    file: "packages/core/src/internal/dedupe/storedFlights.ts",
    find: "        this.end(slot, store.release(request))\n        return undefined",
    replace: "        return undefined"
  },
  {
    name: "flights-claim-of-a-caller-that-left",
    breaks: "a claim whose caller has left keeps the lease",
    caughtBy: ["packages/core/test/Deduplicator.shared.test.ts"],
    file: "packages/core/src/internal/dedupe/storedFlights.ts",
    find: "    this.end(slot, Effect.andThen(answered, this.options.store.release(request)))\n",
    replace: ""
  },
  {
    name: "flights-follows-its-own-end",
    breaks: "a call after a flight of its process gets the result of that flight",
    caughtBy: ["packages/core/test/Deduplicator.shared.test.ts"],
    file: "packages/core/src/internal/dedupe/storedFlights.ts",
    find: "    if (ending !== undefined) yield* Fiber.await(ending)\n",
    replace: ""
  },
  {
    name: "flights-asks-a-store-that-is-down",
    breaks: "every call waits for a store that is down",
    caughtBy: ["packages/core/test/Deduplicator.shared.test.ts"],
    file: "packages/core/src/internal/dedupe/storedFlights.ts",
    find: "this.downUntil = this.options.now() + restMillis",
    replace: "this.downUntil = this.options.now()"
  },
  {
    name: "flights-cached-for-twice-its-time",
    breaks: "a result of another process is cached for its whole time to live again",
    caughtBy: ["packages/core/test/Deduplicator.shared.test.ts"],
    file: "packages/core/src/internal/dedupe/storedFlights.ts",
    find: "              own.onResult(place.freshMillis)\n",
    replace: ""
  },
  {
    name: "flights-shares-large-results",
    breaks: "a result above maxResultBytes is shared",
    caughtBy: ["packages/core/test/Deduplicator.shared.test.ts"],
    file: "packages/core/src/internal/dedupe/storedFlights.ts",
    find: "return this.isTooLarge(result) ? unshared : result",
    replace: "return result"
  }
]

/** The mutated source. `undefined` if `find` does not occur exactly once: the mutant has to be made again. */
export const mutate = ({ find, replace }: Mutant, source: string): string | undefined => {
  const at = source.indexOf(find)
  if (at < 0 || source.includes(find, at + 1)) return undefined
  return source.slice(0, at) + replace + source.slice(at + find.length)
}
