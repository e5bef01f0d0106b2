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
import { describe } from "./describe.ts"

type Service = Redis.Redis["Service"]

/** How long a start waits for what is neither there nor refused. */
const patience = "1 second"

// Soon at first, since both may be starting; then as rarely as a client that has lost its connection.
const pace = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])

/**
 * A `Redis` that may come later: until then every verb fails with what stood in the way, and the connection is tried again. Only
 * what is not Redis' doing fails the layer, as a wrong configuration does.
 */
export const redisInBackground = <E, R>(
  connection: Layer.Layer<Redis.Redis, E, R>
): Layer.Layer<Redis.Redis, Exclude<E, Redis.RedisError>, R> =>
  Layer.effect(
    Redis.Redis,
    Effect.gen(function*() {
      const scope = yield* Effect.scope
      const begun = yield* Deferred.make<void, Exclude<E, Redis.RedisError>>()
      let redis: Service | undefined
      let absent = new Redis.RedisError({ cause: Object.assign(new Error("not connected yet"), { code: "ENOTCONN" }) })
      let isTold = false

      // Told before whoever starts goes on: that may be over at once.
      const begin = Effect.sync(() => void Deferred.doneUnsafe(begun, Exit.void))
      const noteAbsence = (error: Redis.RedisError) =>
        Effect.suspend(() => {
          absent = error
          if (isTold) return Effect.void
          isTold = true
          return Effect.logWarning(`${describe(error)}; going on without it, and trying again`)
        }).pipe(Effect.andThen(begin))
      const notePresence = (service: Service) =>
        Effect.suspend(() => {
          redis = service
          return isTold ? Effect.logInfo("Redis is there now") : Effect.void
        }).pipe(Effect.andThen(begin))
      // Whoever started does not wait for it any more if it comes late.
      const noteDefeat = (cause: Cause.Cause<E>) =>
        Effect.suspend(() => {
          const why = cause as Cause.Cause<Exclude<E, Redis.RedisError>>
          return Deferred.doneUnsafe(begun, Exit.failCause(why)) || Cause.hasInterruptsOnly(cause)
            ? Effect.void
            : Effect.logError(`Redis will not be asked: its layer failed with ${nameOf(Cause.squash(cause))}`)
        })

      yield* attempt(connection, scope).pipe(
        Effect.tapError((error) => isRedisError(error) ? noteAbsence(error) : Effect.void),
        Effect.retry({ schedule: pace, while: isRedisError }),
        Effect.matchCauseEffect({ onFailure: noteDefeat, onSuccess: notePresence }),
        Effect.forkIn(scope)
      )
      yield* Effect.raceFirst(Deferred.await(begun), Effect.andThen(Effect.sleep(patience), begin))

      const use = <A, E2, R2>(ask: (redis: Service) => Effect.Effect<A, E2, R2>) =>
        Effect.suspend((): Effect.Effect<A, E2 | Redis.RedisError, R2> =>
          redis === undefined ? Effect.fail(absent) : ask(redis)
        )
      return Redis.Redis.of({
        send: (command, ...args) => use((redis) => redis.send(command, ...args)),
        eval: (script) => (...params) => use((redis) => redis.eval(script)(...params)),
        reserve: use((redis) => redis.reserve),
        subscribe: (channel) => Effect.suspend(() => redis === undefined ? failed(absent) : redis.subscribe(channel))
      })
    })
  )

/** One connection, which lives as long as the scope, or nothing. */
const attempt = <E, R>(connection: Layer.Layer<Redis.Redis, E, R>, scope: Scope.Scope) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const own = yield* Scope.make()
      // Built anew each time: a layer that failed once would be remembered as such.
      const building = yield* Layer.buildWithScope(Layer.fresh(connection), own).pipe(
        Effect.onError((cause) => Scope.close(own, Exit.failCause(cause))),
        Effect.forkDetach
      )
      // Who leaves does not wait: a client that is closed waits for an answer to its greeting, and a server that hangs gives none.
      const built = yield* restore(Fiber.join(building)).pipe(
        Effect.onInterrupt(() =>
          Effect.forkDetach(Effect.andThen(Fiber.interrupt(building), Scope.close(own, Exit.void)))
        )
      )
      yield* Scope.addFinalizerExit(scope, (exit) => Scope.close(own, exit))
      return Context.get(built, Redis.Redis)
    })
  )

// What an error says may name an address.
const nameOf = (error: unknown): string => error instanceof Error ? error.name : "what is no error"

const failed = (error: Redis.RedisError) =>
  Effect.tap(Queue.unbounded<Redis.RedisMessage, Redis.RedisError>(), (queue) => Queue.fail(queue, error))

const isRedisError = (error: unknown): error is Redis.RedisError => error instanceof Redis.RedisError
