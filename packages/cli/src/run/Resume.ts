/** Continues a run: checks the input against the results of earlier runs, and leaves out answered lines. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { FileHandle } from "node:fs/promises"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"
import * as ExistingFile from "./ExistingFile.ts"
import type * as Input from "./Input.ts"
import * as Journal from "./Journal.ts"
import type * as Output from "./Output.ts"
import type { State } from "./Place.ts"
import { Place } from "./Place.ts"
import type { Malformed, Prompt } from "./Prompt.ts"
import * as Request from "./Request.ts"
import type { Settings } from "./Settings.ts"
import * as Words from "./Words.ts"

/** The input does not match the results. */
export class ResumeError extends Schema.Error<ResumeError>("sluice/ResumeError")({
  _tag: Schema.tag("ResumeError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot resume from ${Terminal.escape(this.path)}: ${this.why}`
  }
}

/** Which lines are sent: all without an answer, only new and unfinished ones, or only failed and unfinished ones. */
export type Mode = "unanswered" | "new" | "failed"

export const modeOf = (
  { onlyNew, resume, retryFailed }: Pick<Settings, "onlyNew" | "resume" | "retryFailed">
): Mode | undefined => onlyNew ? "new" : retryFailed ? "failed" : resume ? "unanswered" : undefined

const sent: { readonly [_ in Mode]: ReadonlySet<State> } = {
  unanswered: new Set(["new", "failed", "unsent"]),
  new: new Set(["new", "unsent"]),
  failed: new Set(["failed", "unsent"])
}

type Item = Prompt | Malformed

export interface Resume {
  readonly place: Place
  /** What earlier runs cost, in millionths of a dollar. */
  readonly cost: number
  /** How to open the results. `undefined` if there are none yet. */
  readonly output: Output.Resumed | undefined
  /** Bytes of an unfinished result at the end of the file. */
  readonly torn: number
  /**
   * Reads the whole input and compares it with the results, before the first request. Returns how many lines are left to send.
   * `undefined` if the input can be read only once.
   */
  readonly check: Effect.Effect<number | undefined, ResumeError | Input.InputError>
  /** How many lines without an answer were left out so far. */
  readonly leftOut: () => number
  /** The lines to send. Fails at a line that does not match its result. */
  readonly items: Stream.Stream<Item, ResumeError | Input.InputError>
}

/** Reads the results. The lock of the file must be held. */
export const make = (
  settings: Settings,
  input: Input.Input,
  mode: Mode
): Effect.Effect<Resume, ResumeError | Journal.JournalError> =>
  Effect.map(Effect.tap(read(settings.output), (journal) => fitSamples(settings, journal)), (journal): Resume => {
    const place = journal?.place ?? new Place()
    const lines = new Lines(settings, place, mode)
    const { again, items } = input
    const common = {
      place,
      cost: journal?.cost ?? 0,
      output: journal,
      torn: journal?.torn ?? 0,
      leftOut: () => lines.leftOut
    }
    if (again === undefined) {
      const passed = Stream.filter(compared(items, lines), (item) => lines.passes(item))
      return { ...common, check: Effect.undefined, items: passed }
    }
    let left: number | undefined
    return {
      ...common,
      check: Effect.map(check(again, lines), (counted) => left = counted),
      // Compared before, and not read again if no line is left to send.
      items: Stream.suspend(() => left === 0 ? Stream.empty : Stream.filter(items, (item) => lines.isSent(item)))
    }
  })

/** Fails if results have samples that the run does not ask for. */
const fitSamples = (
  { output: path, samples }: Settings,
  journal: Journal.Journal | undefined
): Effect.Effect<void, ResumeError> => {
  const { lastSample } = journal?.place ?? { lastSample: 1 }
  return lastSample <= samples
    ? Effect.void
    : Effect.fail(new ResumeError({ path, why: `it has ${lastSample} samples of a line; use --samples ${lastSample}` }))
}

/** Compares each line as it is read, and looks for missing ones at the end. */
const compared = (items: Input.Input["items"], lines: Lines): Resume["items"] =>
  Stream.concat(
    Stream.mapEffect(items, (item) => lines.fits(item)),
    Stream.drain(Stream.fromEffect(Effect.suspend(() => lines.missing)))
  )

const withFile = <A>(path: string, use: (handle: FileHandle) => Promise<A>) =>
  Effect.tryPromise({
    try: () => ExistingFile.read(path, use),
    catch: (error) =>
      error instanceof Journal.JournalError ? error : new ResumeError({ path, why: SystemError.describe(error) })
  })

/** Reads the results. `undefined` if there is no such file. */
const read = (path: string) => withFile(path, (handle) => Journal.scan(handle, path))

const check = (again: Stream.Stream<Item, Input.InputError>, lines: Lines) =>
  Effect.suspend(() => {
    let left = 0
    let others = 0
    let first: Item | undefined
    // A loop over whole arrays: an effect for each line would take most of the time.
    return Stream.runForEachArray(again, (items) =>
      Effect.sync(() => {
        for (const item of items) {
          if (!lines.isSame(item)) {
            first ??= item
            others++
          }
          if (lines.passes(item)) left++
        }
      })).pipe(
        Effect.flatMap(() => first === undefined ? lines.missing : lines.refuse(first, others - 1)),
        Effect.map(() => left)
      )
  })

const sampledOf = (item: Item) => ({ line: item.line, sample: item._tag === "Prompt" ? item.sample : undefined })

class Lines {
  private readonly settings: Settings
  private readonly place: Place
  private readonly mode: Mode
  leftOut = 0
  private readonly requestOf: ReturnType<typeof Request.hasher>

  constructor(settings: Settings, place: Place, mode: Mode) {
    this.settings = settings
    this.place = place
    this.mode = mode
    this.requestOf = Request.hasher(settings)
  }

  /** Whether the line is sent. Counts the lines without an answer that are left out. */
  passes(item: Item): boolean {
    const isSent = this.isSent(item)
    if (!isSent && this.place.stateOf(sampledOf(item)) !== "ok") this.leftOut++
    return isSent
  }

  isSent(item: Item): boolean {
    const state = this.place.stateOf(sampledOf(item))
    // Its result would be the same again.
    if (item._tag === "Malformed" && state === "failed") return false
    return sent[this.mode].has(state)
  }

  /** Whether the line matches its result. Records that the input has the line. */
  isSame(item: Item): boolean {
    const { place } = this
    const state = place.stateOf(sampledOf(item))
    if (state === "new") return true
    place.see(sampledOf(item))
    const compared = place.compare(sampledOf(item), item.id, item._tag === "Prompt" ? this.requestOf(item) : undefined)
    // A failed line has no answer that could belong to another request. So it may be corrected if its id identifies it.
    return compared === "same" || (compared === "changed" && state !== "ok" && item.id !== undefined)
  }

  fits(item: Item): Effect.Effect<Item, ResumeError> {
    return this.isSame(item) ? Effect.succeed(item) : this.refuse(item, 0)
  }

  /** Fails with the line, its id, and that of its result. */
  refuse(item: Item, others: number): Effect.Effect<never, ResumeError> {
    const { output: path } = this.settings
    const found = withFile(path, (handle) => Journal.find(handle, item.line))
    return Effect.flatMap(Effect.orElseSucceed(found, () => undefined), (entry) => {
      const [now, before] = [shown(item.id), shown(textOf(entry?.id))]
      const what = now === before
        ? `line ${item.line} (${now}) of the input is not the prompt that was sent`
        : `line ${item.line} of the input is another prompt: ${now}, in the results ${before}`
      const more = others === 0 ? "" : `, and so are ${Words.plural(others, "other line")}`
      return new ResumeError({
        path,
        why:
          `${what}${more}. Use the same file and the same --model, --system and other flags of requests, or write to a ` +
          "new file with -o"
      })
    })
  }

  /** Fails if results have lines that the input lacks. With a limit the rest of the input is not known. */
  get missing(): Effect.Effect<void, ResumeError> {
    const unseen = this.settings.limit === undefined ? this.place.unseen : undefined
    if (unseen === undefined) return Effect.void
    const more = unseen.count === 1 ? "" : `, and ${Words.plural(unseen.count - 1, "other")} too`
    return Effect.fail(
      new ResumeError({
        path: this.settings.output,
        why:
          `line ${unseen.first} has a result and is missing in the input${more}. Use the same file, or write to a new ` +
          "file with -o"
      })
    )
  }
}

const shown = (id: string | undefined): string =>
  id === undefined ? "without an id" : `id ${Terminal.clip(Terminal.escape(id), 60)}`

/** An id of the results for a message. */
const textOf = (id: string | undefined): string | undefined => {
  if (id === undefined) return undefined
  const text: unknown = JSON.parse(`"${Buffer.from(id, "latin1").toString()}"`)
  return String(text)
}
