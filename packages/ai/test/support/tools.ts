import { Effect, Schema } from "effect"
import { Tool, Toolkit } from "effect/ai"

/** The handler of a tool that a test never runs. */
export const unusedHandler = () => Effect.die("this tool must not run")

const Add = Tool.make("add", {
  description: "Adds two numbers",
  parameters: Schema.Struct({ x: Schema.Int, y: Schema.Int }),
  success: Schema.Int
})
const Now = Tool.make("now", { success: Schema.String })

export const calculator = Toolkit.make(Add, Now)

export const calculatorHandlers = calculator.toLayer({
  add: ({ x, y }) => Effect.succeed(x + y),
  now: () => Effect.succeed("noon")
})

const weather = Toolkit.make(
  Tool.make("weather", { parameters: Schema.Struct({ city: Schema.String }), success: Schema.String })
)

/** A toolkit with the tool `weather` and its handler. */
export const weatherToolkit = Effect.provide(
  weather,
  weather.toLayer({ weather: ({ city }) => Effect.succeed(`sun in ${city}`) })
)
