import { testContract } from "./support/contract.ts"
import { describeWithRedis } from "./support/redis.ts"

await describeWithRedis("contract of the store on Redis", testContract)
