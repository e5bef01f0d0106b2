import { describe } from "@effect/vitest"
import { answer, chunk, done, piece, said, table } from "../support/cases.ts"
import { blockDelta, blockStart, blockStop, message, messageDelta, messageStart, namedEvent } from "../support/wires.ts"

const end = chunk({}, "tool_calls") + done
const add = (x: number) => ["add", { x }] as const
const whole = (id: string | undefined, name: string, x: number, index?: number) => ({
  ...(index === undefined ? {} : { index }),
  ...(id === undefined ? {} : { id }),
  type: "function",
  function: { name, arguments: JSON.stringify({ x }) }
})
const input = (index: number, partial_json: string) => blockDelta(index, { type: "input_json_delta", partial_json })
const use = (index: number, id: string, name: string) => blockStart(index, { type: "tool_use", id, name, input: {} })
const stop = messageDelta("tool_use") + namedEvent({ type: "message_stop" })

describe("the pieces of tool calls in a stream", () => {
  table([
    {
      report: "LocalAI 9722",
      title: "a call that comes again whole at another index is one call",
      stream: piece(whole("x", "add", 1, 0)) + piece(whole("x", "add", 1, 1)) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "LocalAI 9722",
      title: "a call that comes again in pieces at another index is one call",
      stream: piece({ index: 0, id: "x", function: { name: "add", arguments: "" } }) +
        piece({ index: 0, function: { arguments: "{\"x\":1}" } }) +
        piece({ index: 1, id: "x", function: { name: "add", arguments: "{\"x\"" } }) +
        piece({ index: 1, function: { arguments: ":1}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "LocalAI 9722",
      title: "the beginning of a call and the whole of it at another index are one call",
      stream: piece({ index: 0, id: "x", function: { name: "add", arguments: "{\"x\"" } }) +
        piece(whole("x", "add", 1, 1)) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "LocalAI 9722",
      title: "a call whose arguments come at another index with its id is one call",
      stream: piece({ index: 0, id: "x", function: { name: "add", arguments: "" } }) +
        piece({ index: 1, id: "x", function: { arguments: "{\"x\":1}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "xorbits 4237",
      title: "two calls with one id at two indexes and other arguments are two calls",
      stream: piece(whole("x", "add", 1, 0)) + piece(whole("x", "add", 2, 1)) + end,
      right: { calls: [add(1), add(2)], ids: 2 }
    },
    {
      report: "hermes-agent 62937",
      title: "one index and no ids with two names are two calls",
      stream: piece(whole(undefined, "add", 1, 0)) + piece(whole(undefined, "multiply", 2, 0)) + end,
      right: { calls: [add(1), ["multiply", { x: 2 }]], ids: 2 }
    },
    {
      report: "gcli2api 406",
      title: "one index and no ids with one name and whole arguments are two calls",
      stream: piece(whole(undefined, "add", 1, 0)) + piece(whole(undefined, "add", 2, 0)) + end,
      right: { calls: [add(1), add(2)], ids: 2 }
    },
    {
      report: "plexus 691",
      title: "one index with three ids and one name are three calls",
      stream: piece(whole("a", "add", 1, 0)) + piece(whole("b", "add", 2, 0)) + piece(whole("c", "add", 3, 0)) + end,
      right: { calls: [add(1), add(2), add(3)], ids: 3 }
    },
    {
      report: "omnigent 28",
      title: "two calls in one chunk without indexes and ids are two calls",
      stream: chunk({ tool_calls: [whole(undefined, "add", 1), whole(undefined, "multiply", 2)] }) + end,
      right: { calls: [add(1), ["multiply", { x: 2 }]], ids: 2 }
    },
    {
      report: "pool 9",
      title: "an id that changes after the first piece is of one call",
      stream: piece({ index: 0, id: "a", function: { name: "add", arguments: "" } }) +
        piece({ index: 0, id: "b", function: { arguments: "{\"x\":" } }) +
        piece({ index: 0, id: "b", function: { arguments: "1}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "vllm 23522",
      title: "an id that is new in every piece, beside the name, is of one call",
      stream: piece({ index: 0, id: "a", function: { name: "add", arguments: "{\"x\"" } }) +
        piece({ index: 0, id: "b", function: { name: "add", arguments: ":" } }) +
        piece({ index: 0, id: "c", function: { name: "add", arguments: "1}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "SillyTavern 5948",
      title: "an id and a name that every piece repeats are of one call",
      stream: piece({ index: 0, id: "a", type: "function", function: { name: "add", arguments: "" } }) +
        piece({ index: 0, id: "a", type: "function", function: { name: "add", arguments: "{\"x\":" }, name: null }) +
        piece({ index: 0, id: "a", type: "function", function: { name: "add", arguments: "1}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "Qwen-Agent 943",
      title: "an id that comes after the name is of the same call",
      stream: piece({ index: 0, function: { name: "add", arguments: "{\"x\"" } }) +
        piece({ index: 0, id: "a", function: { arguments: ":1}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "Qwen-Agent 943",
      title: "pieces without an index that alternate by id are two calls",
      stream: piece({ id: "a", function: { name: "add", arguments: "{\"x\"" } }) +
        piece({ id: "b", function: { name: "multiply", arguments: "{\"x\"" } }) +
        piece({ id: "a", function: { arguments: ":1}" } }) + piece({ id: "b", function: { arguments: ":2}" } }) + end,
      right: { calls: [add(1), ["multiply", { x: 2 }]] }
    },
    {
      report: "opencodex 361",
      title: "whole arguments that a last piece repeats are those of one call",
      stream: piece({ index: 0, id: "a", function: { name: "add", arguments: "" } }) +
        piece({ index: 0, function: { arguments: "{\"x\":1}" } }) +
        piece({ index: 0, function: { arguments: "{\"x\":1}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "eliza 16973",
      title: "arguments in pieces that a last piece with the id repeats whole are those of one call",
      stream: piece({ index: 0, id: "a", function: { name: "add", arguments: "{\"x\"" } }) +
        piece({ index: 0, function: { arguments: ":1}" } }) + piece(whole("a", "add", 1, 0)) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "vercel/ai 3953",
      title: "an empty piece beside the finish reason adds nothing",
      stream: piece(whole("a", "add", 1, 0)) +
        chunk({ tool_calls: [{ index: 0, function: { arguments: "" } }] }, "tool_calls") + done,
      right: { calls: [add(1)] }
    },
    {
      report: "async-openai 329",
      title: "calls without arguments, with ids and one index, are two calls",
      stream: piece({ index: 0, id: "a", function: { name: "now", arguments: "" } }) +
        piece({ index: 0, id: "b", function: { name: "now", arguments: "" } }) + end,
      right: { calls: [["now", {}], ["now", {}]], ids: 2 }
    },
    {
      report: "xorbits 4237",
      title: "two blocks of Anthropic's wire with one id are two calls",
      wire: "anthropic",
      stream: messageStart() + use(0, "x", "add") + input(0, "{\"x\":1}") + blockStop(0) +
        use(1, "x", "add") + input(1, "{\"x\":2}") + blockStop(1) + stop,
      right: { calls: [add(1), add(2)], ids: 2 }
    },
    {
      report: "LocalAI 9722",
      title: "a block of Anthropic's wire that comes twice is one call",
      wire: "anthropic",
      stream: messageStart() + use(0, "x", "add") + input(0, "{\"x\":1}") + blockStop(0) +
        use(1, "x", "add") + input(1, "{\"x\":1}") + blockStop(1) + stop,
      right: { calls: [add(1)] }
    },
    {
      report: "hermes-agent 62937",
      title: "two blocks of Anthropic's wire with one index and no ids are two calls",
      wire: "anthropic",
      stream: messageStart() + use(0, "", "add") + input(0, "{\"x\":1}") + blockStop(0) +
        use(0, "", "add") + input(0, "{\"x\":2}") + blockStop(0) + stop,
      right: { calls: [add(1), add(2)], ids: 2 }
    },
    {
      report: "opencodex 361",
      title: "an empty object before the arguments is their placeholder",
      stream: piece({ index: 0, id: "a", function: { name: "add", arguments: "{}" } }) +
        piece({ index: 0, function: { arguments: "{\"x\"" } }) + piece({ index: 0, function: { arguments: ":1}" } }) +
        end,
      right: { calls: [add(1)] }
    },
    {
      report: "opencodex 361",
      title: "an empty object in the same piece as the beginning of the arguments is their placeholder",
      stream: piece({ index: 0, id: "a", function: { name: "add", arguments: "{}{\"x\"" } }) +
        piece({ index: 0, function: { arguments: ":1}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "opencodex 361",
      title: "an empty object before arguments that the model did not finish is no call",
      stream: piece({ index: 0, id: "a", function: { name: "add", arguments: "{}" } }) +
        piece({ index: 0, function: { arguments: "{\"x\"" } }) + chunk({}, "length") + done,
      right: { calls: [], finish: "length" }
    },
    {
      report: "eliza 16973",
      title: "a call that comes again with other white space is one call",
      stream: piece(whole("a", "add", 1, 0)) +
        piece({ index: 0, id: "a", function: { name: "add", arguments: "{\"x\": 1}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "eliza 16973",
      title: "a call that comes again with other white space at another index is one call",
      stream: piece(whole("a", "add", 1, 0)) +
        piece({ index: 1, id: "a", function: { name: "add", arguments: "{\"x\": 1}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "eliza 16973",
      title: "calls in pieces that the last message repeats whole, with other white space, are one call each",
      stream: piece({ index: 0, id: "a", function: { name: "add", arguments: "{\"x\"" } }) +
        piece({ index: 0, function: { arguments: ":1}" } }) + piece(whole("b", "add", 2, 1)) +
        said({
          tool_calls: [
            { id: "a", type: "function", function: { name: "add", arguments: "{\"x\": 1}" } },
            { type: "function", function: { name: "add", arguments: "{\"x\": 2}" } }
          ]
        }, "tool_calls") + done,
      right: { calls: [add(1), add(2)], ids: 2 }
    },
    {
      report: "LocalAI 9722",
      title: "a call that comes again with more arguments has them all",
      stream: piece(whole("a", "add", 1, 0)) +
        piece({ index: 0, id: "a", function: { name: "add", arguments: "{\"x\":1,\"y\":2}" } }) + end,
      right: { calls: [["add", { x: 1, y: 2 }]] }
    },
    {
      report: "LocalAI 9722",
      title: "a call that comes again without its arguments keeps them",
      stream: piece(whole("a", "add", 1, 0)) +
        piece({ index: 0, id: "a", function: { name: "add", arguments: "{}" } }) + end,
      right: { calls: [add(1)] }
    },
    {
      report: "LocalAI 9722",
      title: "a call that comes again with its id, its index and another value has the last one",
      stream: piece(whole("a", "add", 1, 0)) + piece(whole("a", "add", 2, 0)) + end,
      right: { calls: [add(2)] }
    },
    {
      report: "opencodex 361",
      title: "an empty object before the input of Anthropic's wire is its placeholder",
      wire: "anthropic",
      stream: messageStart() + use(0, "x", "add") + input(0, "{}") + input(0, "{\"x\":1}") + blockStop(0) + stop,
      right: { calls: [add(1)] }
    },
    {
      report: "LocalAI 9722",
      title: "a block of Anthropic's wire that comes again with other white space and more input is one call",
      wire: "anthropic",
      stream: messageStart() + use(0, "x", "add") + input(0, "{\"x\":1}") + blockStop(0) +
        use(1, "x", "add") + input(1, "{\"x\": 1, \"y\": 2}") + blockStop(1) + stop,
      right: { calls: [["add", { x: 1, y: 2 }]] }
    }
  ])
})

describe("the tool calls of a whole answer", () => {
  table([
    {
      report: "xorbits 4237",
      title: "two calls with one id are two calls",
      whole: answer({ content: null, tool_calls: [whole("x", "add", 1), whole("x", "add", 2)] }, "tool_calls"),
      right: { calls: [add(1), add(2)], ids: 2 }
    },
    {
      report: "xorbits 4237",
      title: "two equal calls without ids are two calls",
      whole: answer(
        { content: null, tool_calls: [whole(undefined, "add", 1), whole(undefined, "add", 1)] },
        "tool_calls"
      ),
      right: { calls: [add(1), add(1)], ids: 2 }
    },
    {
      report: "gcli2api 406",
      title: "two calls with one index are two calls",
      whole: answer({ content: null, tool_calls: [whole("a", "add", 1, 0), whole("b", "add", 2, 0)] }, "tool_calls"),
      right: { calls: [add(1), add(2)], ids: 2 }
    },
    {
      report: "codex-lb 284",
      title: "arguments that are one object several times are that object",
      whole: answer({
        content: null,
        tool_calls: [{ id: "x", function: { name: "add", arguments: "{\"x\":1}{\"x\":1}{\"x\":1}" } }]
      }, "tool_calls"),
      right: { calls: [add(1)] }
    },
    {
      report: "xorbits 4237",
      title: "two blocks of Anthropic's whole answer with one id are two calls",
      wire: "anthropic",
      whole: message([
        { type: "tool_use", id: "x", name: "add", input: { x: 1 } },
        { type: "tool_use", id: "x", name: "add", input: { x: 2 } }
      ], { stop_reason: "tool_use" }),
      right: { calls: [add(1), add(2)], ids: 2 }
    },
    {
      report: "xorbits 4237",
      title: "two blocks of Anthropic's whole answer without ids are two calls",
      wire: "anthropic",
      whole: message([
        { type: "tool_use", name: "add", input: { x: 1 } },
        { type: "tool_use", name: "add", input: { x: 1 } }
      ], { stop_reason: "tool_use" }),
      right: { calls: [add(1), add(1)], ids: 2 }
    }
  ])
})
