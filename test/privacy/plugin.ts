/**
 * Makes secrets of what the tests hand in: a Vite plugin that marks, in test files only, what is written as a key or as a prompt.
 *
 * `{ key: expression }` becomes `{ key: secretOrKeyOf(expression) }`, which remembers the value and hands it on as it is. So every
 * key and prompt of every test is a canary, those made in a loop as well, and no test has to know of it.
 */
import { fileURLToPath } from "node:url"
import { parseAst, type Vite } from "vitest/node"

const fileOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url))
const standIn = fileOf("vitest.ts")

// Where a test names a dependency, a request or a tenant, or writes a prompt or an answer.
const properties = new Set(["key", "tenant", "prompt", "content", "text", "input"])
// Where it names what may be seen. Some policies are called like what they call.
const names = new Set(["name", "policy"])
// Members that take a key by position.
const members = new Set(["state", "failureCount", "check", "control", "reset"])

export const privacy = (): Vite.Plugin => ({
  name: "privacy",
  enforce: "pre",
  resolveId: (source, importer) => source === "@effect/vitest" && importer !== standIn ? standIn : undefined,
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

/** The same program, in which secrets are remembered. Exported for its test. */
export const mark = (code: string): string => {
  const edits: Array<Edit> = []
  // A tree of the parser's: every node has a type and its place in the source.
  visit(parseAst(code, { lang: "ts" }) as unknown as Node, edits)
  if (edits.length === 0) return code
  let marked = ""
  let from = 0
  for (const { at, text } of edits.toSorted((a, b) => a.at - b.at)) {
    marked += code.slice(from, at) + text
    from = at
  }
  // On the first line, so that every other keeps its number.
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
  const called = String(name["name"] ?? name["value"])
  const by = properties.has(called) ? "secretOrKeyOf" : names.has(called) ? "publicName" : undefined
  if (by === undefined) return
  if (property["shorthand"] === true) edits.push({ at: name.start, text: `${called}: ` })
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
