import type * as Deferred from "effect/Deferred"
import type { Snapshot } from "../../CircuitBreakerStore.ts"
import { type Linked, LinkedList } from "../kit/linkedList.ts"

/** The cached copy of a shared circuit. */
export class CachedCircuit implements Linked<CachedCircuit> {
  readonly key: string
  snapshot: Snapshot | undefined = undefined
  /** When the snapshot was received, on this process's clock. */
  receivedAt = 0
  /** Requests are numbered. The answer to an older request than the last applied one is ignored. */
  requested = 0
  applied = 0
  /** Completes when the read in flight has ended. */
  reading: Deferred.Deferred<void> | undefined = undefined
  /** The end of the first `retryAfter` of callers that this snapshot refused, on this process's clock. */
  retryAt = Number.POSITIVE_INFINITY
  /** The last generation in which this process admitted a probe. */
  probedIn = 0
  /** Requests for a probe slot in flight. */
  leasing = 0
  /** The generation that the circuit of this process was copied from. */
  adopted: number | undefined = undefined
  previous: CachedCircuit | undefined = undefined
  next: CachedCircuit | undefined = undefined

  constructor(key: string) {
    this.key = key
  }
}

const maxCached = 10_000

/** The copies of the most recently used circuits. */
export class CircuitCache {
  private readonly circuits = new Map<string, CachedCircuit>()
  private readonly recency = new LinkedList<CachedCircuit>()

  get(key: string): CachedCircuit | undefined {
    return this.circuits.get(key)
  }

  /** The copy of the key's circuit, made if there is none. It becomes the most recently used one. */
  use(key: string): CachedCircuit {
    const known = this.circuits.get(key)
    if (known !== undefined) {
      this.recency.moveToLast(known)
      return known
    }
    const { first } = this.recency
    if (this.circuits.size >= maxCached && first !== undefined) {
      this.recency.remove(first)
      this.circuits.delete(first.key)
    }
    const made = new CachedCircuit(key)
    this.circuits.set(key, made)
    this.recency.append(made)
    return made
  }
}
