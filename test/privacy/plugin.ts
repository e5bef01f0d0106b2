/**
 * A Vite plugin that treats the keys and prompts in test files as secrets.
 *
 * `{ key: expression }` becomes `{ key: secretOrKeyOf(expression) }`, which remembers the value and returns it unchanged. So every key
 * and prompt of every test is a canary, including those made in a loop, and the tests need no changes.
 */
import { fileURLToPath } from "node:url"
import { parseAst, type Vite } from "vitest/node"

const fileOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url))
const replacement = fileOf("vitest.ts")

// Properties with dependencies, requests, tenants, prompts and answers.
const properties = new Set(["key", "tenant", "prompt", "content", "text", "input"])
// Properties with public names. Some policies have the name of their dependency.
const names = new Set(["name", "policy"])
// Methods whose first argument is a key.
const members = new Set(["state", "failureCount", "check", "control", "reset"])

export const privacy = (): Vite.Plugin => ({
  name: "privacy",
  enforce: "pre",
  resolveId: (source, importer) => source === "@effect/vitest" && importer !== replacement ? replacement : undefined,
  transform: (code, id) => /\/packages\/[^/]+\/test\/.*\.ts$|\/test\/privacy\/leaks\//.test(id) ? mark(code) : undefined
})

interface Node {
  readonly type: string
  readonly start: number
  readonly end: number
  readonly [field: string]: unknown
}

interface Edit {
  readonly at: number
  readonly text: string
}

/** Marks the secrets of a program. */
export const mark = (code: string): string => {
  const edits: Array<Edit> = []
  // Every node of the parser's tree has a type and its position in the source.
  visit(parseAst(code, { lang: "ts" }) as unknown as Node, edits)
  if (edits.length === 0) return code
  let marked = ""
  let from = 0
  for (const { at, text } of edits.toSorted((a, b) => a.at - b.at)) {
    marked += code.slice(from, at) + text
    from = at
  }
  // On the first line, so that line numbers stay the same.
  return `import * as __secrets from ${JSON.stringify(fileOf("secrets.ts"))};${marked}${code.slice(from)}`
}

const visit = (node: Node, edits: Array<Edit>): void => {
  if (node.type === "ObjectExpression") {
    for (const property of nodesIn(node["properties"])) markProperty(property, edits)
  }
  if (node.type === "CallExpression") markArgument(node, edits)
  for (const child of Object.values(node)) for (const inner of nodesIn(child)) visit(inner, edits)
}

const markProperty = (property: Node, edits: Array<Edit>): void => {
  if (property.type !== "Property" || property["computed"] === true || property["method"] === true) return
  const [name] = nodesIn(property["key"])
  const [value] = nodesIn(property["value"])
  if (name === undefined || value === undefined) return
  const propertyName = String(name["name"] ?? name["value"])
  const by = properties.has(propertyName) ? "secretOrKeyOf" : names.has(propertyName) ? "publicName" : undefined
  if (by === undefined) return
  if (property["shorthand"] === true) edits.push({ at: name.start, text: `${propertyName}: ` })
  wrap(value, by, edits)
}

const markArgument = (call: Node, edits: Array<Edit>): void => {
  const [callee] = nodesIn(call["callee"])
  const [member] = nodesIn(callee?.["property"])
  const [first] = nodesIn(call["arguments"])
  if (callee?.type !== "MemberExpression" || !members.has(String(member?.["name"]))) return
  if (first !== undefined && first.type !== "SpreadElement") wrap(first, "secret", edits)
}

const wrap = ({ end, start }: Node, by: "publicName" | "secret" | "secretOrKeyOf", edits: Array<Edit>): void => {
  edits.push({ at: start, text: `__secrets.${by}(` }, { at: end, text: ")" })
}

const nodesIn = (value: unknown): ReadonlyArray<Node> =>
  (Array.isArray(value) ? value : [value]).filter((child): child is Node =>
    typeof child === "object" && child !== null && "type" in child && "start" in child
  )
