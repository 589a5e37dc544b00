import type { DeviceClient } from "../../storage-node/client.ts";
import { CONFIGURATION_PATH } from "../../storage-node/wire.ts";
import type { Settle, UnsettledSource } from "../daemons/settler.ts";
import type { Accounts } from "./accounts.ts";
import type { Containers } from "./containers.ts";
import type { Objects } from "./objects.ts";
import { MESSAGE_TIMEOUT_MS } from "./messages.ts";
import type { MoveIo } from "./move-io.ts";

/** A device as the settler asks it. */
export const unsettledAt = (client: DeviceClient): UnsettledSource => ({
  unsettled: (olderThanMs, from) => client.unsettled(olderThanMs, from, MESSAGE_TIMEOUT_MS),
});

/** Finishes what a device reports, whatever kind of name it is ([B7]). */
export const settleWith =
  (services: {
    readonly accounts: Accounts;
    readonly containers: Containers;
    readonly objects: Objects;
    readonly moves: Pick<MoveIo, "settle">;
  }): Settle =>
  async (name, register, isAgain) => {
    if (name.path === CONFIGURATION_PATH) return services.moves.settle(name, register);
    const [account = "", container = "", ...rest] = name.path.slice(1).split("/");
    switch (name.space) {
      case "account":
        return services.accounts.settle(account, register);
      case "container":
        return services.containers.settle(account, container, register, isAgain);
      case "object":
        return services.objects.settle(account, container, rest.join("/"), register, isAgain);
    }
  };
