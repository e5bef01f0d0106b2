import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { describeError } from "./describeError.ts"

type Service = Redis.Redis["Service"]

/** How long the start waits for a connection that neither succeeds nor fails. */
const startTimeout = "1 second"

// Short at first, since Redis may be starting too. Later as long as the delay of a client that has lost its connection.
const backoff = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])

/**
 * A `Redis` that connects in the background. Until it is connected, its commands fail with the last error. Errors other than a
 * `RedisError`, such as an invalid configuration, fail the layer.
 */
export const redisInBackground = <E, R>(
  connection: Layer.Layer<Redis.Redis, E, R>
): Layer.Layer<Redis.Redis, Exclude<E, Redis.RedisError>, R> =>
  Layer.effect(
    Redis.Redis,
    Effect.gen(function*() {
      const scope = yield* Effect.scope
      const started = yield* Deferred.make<void, Exclude<E, Redis.RedisError>>()
      let redis: Service | undefined
      let lastError = new Redis.RedisError({
        cause: Object.assign(new Error("not connected yet"), { code: "ENOTCONN" })
      })
      let hasWarned = false

      // Runs after logging: a short program may end as soon as it is started.
      const start = Effect.sync(() => void Deferred.doneUnsafe(started, Exit.void))
      const onRefused = (error: Redis.RedisError) =>
        Effect.suspend(() => {
          lastError = error
          if (hasWarned) return Effect.void
          hasWarned = true
          return Effect.logWarning(`${describeError(error)}; starting without Redis and retrying in the background`)
        }).pipe(Effect.andThen(start))
      const onConnected = (service: Service) =>
        Effect.suspend(() => {
          redis = service
          return hasWarned ? Effect.logInfo("Redis is connected") : Effect.void
        }).pipe(Effect.andThen(start))
      // Fails the start. If the program has started already, the error can only be logged.
      const onFatal = (cause: Cause.Cause<E>) =>
        Effect.suspend(() => {
          const fatal = cause as Cause.Cause<Exclude<E, Redis.RedisError>>
          return Deferred.doneUnsafe(started, Exit.failCause(fatal)) || Cause.hasInterruptsOnly(cause)
            ? Effect.void
            : Effect.logError(`Redis stays disconnected: its layer failed with ${nameOf(Cause.squash(cause))}`)
        })

      yield* connectOnce(connection, scope).pipe(
        Effect.tapError((error) => isRedisError(error) ? onRefused(error) : Effect.void),
        Effect.retry({ schedule: backoff, while: isRedisError }),
        Effect.matchCauseEffect({ onFailure: onFatal, onSuccess: onConnected }),
        Effect.forkIn(scope)
      )
      yield* Effect.raceFirst(Deferred.await(started), Effect.andThen(Effect.sleep(startTimeout), start))

      const use = <A, E2, R2>(run: (redis: Service) => Effect.Effect<A, E2, R2>) =>
        Effect.suspend((): Effect.Effect<A, E2 | Redis.RedisError, R2> =>
          redis === undefined ? Effect.fail(lastError) : run(redis)
        )
      return Redis.Redis.of({
        send: (command, ...args) => use((redis) => redis.send(command, ...args)),
        eval: (script) => (...params) => use((redis) => redis.eval(script)(...params)),
        reserve: use((redis) => redis.reserve),
        subscribe: (channel) =>
          Effect.suspend(() => redis === undefined ? failedQueue(lastError) : redis.subscribe(channel))
      })
    })
  )

/** Connects once. The connection lives as long as the scope. A failed or interrupted attempt closes what it opened. */
const connectOnce = <E, R>(connection: Layer.Layer<Redis.Redis, E, R>, scope: Scope.Scope) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const own = yield* Scope.make()
      // `fresh`, since the result of a layer is memoized, also a failure.
      const building = yield* Layer.buildWithScope(Layer.fresh(connection), own).pipe(
        Effect.onError((cause) => Scope.close(own, Exit.failCause(cause))),
        Effect.forkDetach
      )
      // Closes in the background: a client that closes waits for the reply to its first command, which a hanging server never
      // sends.
      const built = yield* restore(Fiber.join(building)).pipe(
        Effect.onInterrupt(() =>
          Effect.forkDetach(Effect.andThen(Fiber.interrupt(building), Scope.close(own, Exit.void)))
        )
      )
      yield* Scope.addFinalizerExit(scope, (exit) => Scope.close(own, exit))
      return Context.get(built, Redis.Redis)
    })
  )

// Not the message, which may contain an address.
const nameOf = (error: unknown): string => error instanceof Error ? error.name : "a value that is not an Error"

const failedQueue = (error: Redis.RedisError) =>
  Effect.tap(Queue.unbounded<Redis.RedisMessage, Redis.RedisError>(), (queue) => Queue.fail(queue, error))

const isRedisError = (error: unknown): error is Redis.RedisError => error instanceof Redis.RedisError
