import type { OptionsReader } from "@sluice/core/OptionsReader"

/** Fields of a request's JSON that are left out, or sent under another name. */
export interface Fields {
  /** Fields that are not sent: `["stream_options", "store"]`. They may be this module's or the caller's. */
  readonly omit?: ReadonlyArray<string> | undefined
  /** Fields that are sent under another name: `{ max_tokens: "max_completion_tokens" }`. */
  readonly rename?: { readonly [field: string]: string } | undefined
}

/** The fields of one API. */
export interface FieldsOfWire {
  /** Fields that every request needs. */
  readonly required: ReadonlyArray<string>
  /** Fields with a meaning in the API. No other field may be renamed to one of them. */
  readonly own: ReadonlyArray<string>
}

/** Valid rules. `undefined`: there are none. */
export type Rules = {
  readonly omit: ReadonlySet<string>
  readonly rename: ReadonlyMap<string, string>
} | undefined

const options: { readonly [_ in keyof Fields]-?: true } = { omit: true, rename: true }

const valid = /^[A-Za-z][A-Za-z0-9_.-]*$/

/** Reads the rules, and adds the issues to `reader`. */
export const read = (reader: OptionsReader, given: Fields | undefined, wire: FieldsOfWire): Rules => {
  if (given === undefined) return undefined
  const fields = reader.object("fields", given, options)
  const omit = new Set<string>()
  if (fields.omit !== undefined && !Array.isArray(fields.omit)) {
    reader.refuse("fields.omit", fields.omit, "must be a list of field names")
  } else {
    for (const name of fields.omit ?? []) {
      if (isName(reader, "fields.omit", name)) omit.add(name)
    }
  }
  const rename = new Map<string, string>()
  for (const [name, target] of Object.entries(reader.object("fields.rename", fields.rename ?? {}))) {
    if (!isName(reader, "fields.rename", name) || !isName(reader, `fields.rename.${name}`, target)) continue
    const requirement = wrongTarget(target, omit, rename, wire)
    if (requirement !== undefined) reader.refuse(`fields.rename.${name}`, target, requirement)
    else rename.set(name, target)
  }
  for (const name of [...omit, ...rename.keys()]) {
    const option = omit.has(name) ? "fields.omit" : "fields.rename"
    if (wire.required.includes(name)) reader.refuse(option, name, "must not be a field that every request needs")
    if (omit.has(name) && rename.has(name)) reader.refuse(option, name, "must not be renamed as well")
  }
  return { omit, rename }
}

const isName = (reader: OptionsReader, option: string, name: unknown): name is string => {
  const isValid = typeof name === "string" && valid.test(name)
  if (!isValid) reader.refuse(option, name, "must be the name of a field")
  return isValid
}

const wrongTarget = (
  target: string,
  omit: ReadonlySet<string>,
  rename: ReadonlyMap<string, string>,
  { own, required }: FieldsOfWire
): string | undefined => {
  if (own.includes(target) || required.includes(target)) return "must not be a field with a meaning of its own"
  if (omit.has(target)) return "must not be omitted as well"
  return [...rename.values()].includes(target) ? "must not be the name of two fields" : undefined
}

/** Applies the rules. A field that the caller sends under its new name takes precedence over the renamed one. */
export const apply = (rules: Rules, body: { readonly [field: string]: unknown }): object => {
  if (rules === undefined) return body
  const sent: Array<readonly [name: string, value: unknown]> = []
  for (const [name, value] of Object.entries(body)) {
    if (rules.omit.has(name)) continue
    const target = rules.rename.get(name)
    if (target === undefined) sent.push([name, value])
    else if (body[target] === undefined) sent.push([target, value])
  }
  return Object.fromEntries(sent)
}
