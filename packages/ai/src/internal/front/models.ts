import { ticket } from "../resilient/engine.ts"
import type { Target } from "../resilient/target.ts"
import type { Upstream } from "./upstream.ts"

type FrontTarget = Target<Upstream>

interface Share {
  readonly target: FrontTarget
  readonly weight: number
}

/** The targets of a model, in the order in which they are tried. Those of one group share the calls by weight. */
type Groups = ReadonlyArray<ReadonlyArray<Share>>

/** A target, or targets that share the calls by these weights. */
export type Step = string | { readonly [target: string]: number }

/** From the models that clients ask for to the targets. A name that ends with `*` matches all models with this prefix. */
export type Routes = { readonly [asked: string]: ReadonlyArray<Step> }

/** Finds the targets of a model. */
export class Models {
  /** The names of all models that are known. A pattern has none. */
  readonly offered: ReadonlyArray<string>
  private readonly exact = new Map<string, Groups>()
  /** The longest beginning first. */
  private readonly patterns: ReadonlyArray<readonly [beginning: string, groups: Groups]>
  /** The targets of all other models. */
  private readonly others: Groups
  /** The targets of a request that names no model. */
  private readonly unnamed: Groups
  /** Whether every model is offered, so that only a provider knows their names. */
  readonly isOpen: boolean

  constructor(targets: ReadonlyArray<FrontTarget>, routes: Routes | undefined) {
    const patterns: Array<readonly [string, Groups]> = []
    const byName = new Map(targets.map((target) => [target.name, target]))
    for (const [asked, steps] of Object.entries(routes ?? {})) {
      const groups = groupsOfSteps(steps, byName)
      if (asked.endsWith("*")) patterns.push([asked.slice(0, -1), groups])
      else this.exact.set(asked, groups)
    }
    this.patterns = patterns.sort(([a], [b]) => b.length - a.length)
    const rest = routes === undefined ? targets : []
    for (const model of rest.flatMap(({ models }) => [...models.keys()])) {
      this.exact.set(model, groupsOf(rest.filter(({ models, service }) => service.offersAll || models.has(model))))
    }
    const open = rest.filter(({ service }) => service.offersAll)
    this.others = groupsOf(open)
    this.unnamed = groupsOf(rest)
    this.isOpen = open.some(({ service }) => service.model === undefined)
    this.offered = [...this.exact.keys()]
  }

  offers(model: string): boolean {
    return this.groups(model).length > 0
  }

  /** The targets of a model, in order. `undefined`: the request names no model. */
  of(asked: string | undefined, random: () => number): ReadonlyArray<FrontTarget> {
    const groups = this.groups(asked)
    return groups.flatMap((group) => drawn(group, random))
  }

  private groups(asked: string | undefined): Groups {
    if (asked === undefined) return this.unnamed
    return this.exact.get(asked) ?? this.patterns.find(([beginning]) => asked.startsWith(beginning))?.[1] ?? this.others
  }
}

/** The target's own name for a model. `undefined`: the name that the client uses. */
export const ownName = ({ models, service }: FrontTarget, asked: string | undefined): string | undefined =>
  (asked === undefined ? undefined : models.get(asked)) ?? service.model

/** Targets of a group, those of more weight sooner more often. */
const drawn = (group: ReadonlyArray<Share>, random: () => number): ReadonlyArray<FrontTarget> => {
  const [first] = group
  if (first !== undefined && group.length === 1) return [first.target]
  return group
    .map(({ target, weight }) => ({ target, ticket: ticket(weight, random) }))
    .sort((a, b) => b.ticket - a.ticket)
    .map(({ target }) => target)
}

/** Each target with its own weight. Targets of equal order are a group. */
const groupsOf = (targets: ReadonlyArray<FrontTarget>): Groups => {
  const groups = new Map<number, Array<Share>>()
  for (const target of targets) {
    const share = { target, weight: target.weight }
    const group = groups.get(target.order)
    if (group === undefined) groups.set(target.order, [share])
    else group.push(share)
  }
  return [...groups.values()]
}

/** Names between two shares are grouped like the targets of a model without a route. */
const groupsOfSteps = (steps: ReadonlyArray<Step>, byName: ReadonlyMap<string, FrontTarget>): Groups => {
  const groups: Array<ReadonlyArray<Share>> = []
  let named: Array<FrontTarget> = []
  const flush = (): void => {
    groups.push(...groupsOf(named))
    named = []
  }
  for (const step of steps) {
    if (typeof step === "string") {
      const target = byName.get(step)
      if (target !== undefined) named.push(target)
      continue
    }
    flush()
    groups.push(
      Object.entries(step).flatMap(([name, weight]) => {
        const target = byName.get(name)
        return target === undefined ? [] : [{ target, weight }]
      })
    )
  }
  flush()
  return groups
}
