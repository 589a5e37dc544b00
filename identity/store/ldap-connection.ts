import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import type { ConnectionOptions } from "node:tls";
import { Client, type Entry, type Filter, InvalidDNSyntaxError, NoSuchObjectError, ResultCodeError } from "ldapts";
import type { Clock } from "../../common/clock.ts";
import { codeOf, messageOf, type RingsteadError } from "../../common/errors.ts";
import { identityError } from "../core/identity-error.ts";
import type { LdapEntry } from "../core/ldap-entries.ts";
import type { LdapSettings } from "../core/ldap-settings.ts";
import { createLimitedWork } from "./limited-work.ts";

const CONNECT_LIMIT_MS = 3_000;
const LOGIN_LIMIT_MS = 5_000;
const SEARCH_LIMIT_MS = 10_000;
/** After a server could not be reached, requests are refused for this long without another try. */
const AWAY_MS = 2_000;
/** Searches and, apart from them, password checks under way at once, and those that wait for them. */
const SEARCHES_MAX = 16;
const CHECKS_MAX = 8;
const WAITING_MAX = 64;
/** Entries that one search gives at most: what an installation's lists have. */
const ENTRIES_MAX = 10_000;
/** Codes of answers that say nothing of what was asked: busy, unavailable (RFC 4511, appendix A). */
const SERVER_TROUBLE = new Set([51, 52]);

type LdapSearch = {
  readonly base: string;
  readonly scope: "base" | "one" | "sub";
  readonly filter: Filter;
  readonly attributes: readonly string[];
};

/** A directory's server. Throws RingsteadError `directory-unavailable` where it is away, too slow, or does not take our name. */
export type LdapConnection = AsyncDisposable & {
  /** What fits, ENTRIES_MAX at most; nothing where `base` is not there. */
  search(search: LdapSearch): Promise<LdapEntry[]>;
  /** Whether the server takes this password for this entry. Requires: neither is empty, which would be an anonymous login. */
  authenticate(dn: string, password: string): Promise<boolean>;
};

const unavailable = (reason: string): RingsteadError =>
  identityError("directory-unavailable", "The directory of this domain cannot be reached.", { reason });

const entryOf = ({ dn, ...attributes }: Entry): LdapEntry => ({
  dn,
  values: new Map(
    Object.entries(attributes).map(([name, given]) => {
      const values = Array.isArray(given) ? given : [given];
      return [name.toLowerCase(), values.map((value) => (typeof value === "string" ? value : value.toString("hex")))];
    }),
  ),
});

/** Rejects when `work` takes longer; then `late` ends what it holds. */
const within = async <Result>(limitMs: number, work: Promise<Result>, late: () => void): Promise<Result> => {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      late();
      reject(new Error(`no answer within ${limitMs} ms`));
    }, limitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
};

const close = (client: Client): void => {
  // It is of no use any more; how it ends does not matter.
  client.unbind().catch(() => undefined);
};

/**
 * One connection for searches, opened when it is needed and again after it broke, and one for each password check. All waits have limits; while
 * the server is away each request costs a comparison.
 */
export const createLdapConnection = (settings: LdapSettings, clock: Clock): LdapConnection => {
  let opening: Promise<Client> | undefined;
  let opened: Client | undefined;
  let awayUntilMs = Number.NEGATIVE_INFINITY;
  let reason = "";
  const refusal = (): Error => identityError("too-busy", "Too many requests to the directory are under way.");
  const searching = createLimitedWork({ concurrentMax: SEARCHES_MAX, waitingMax: WAITING_MAX, refusal });
  const checking = createLimitedWork({ concurrentMax: CHECKS_MAX, waitingMax: WAITING_MAX, refusal });

  const tlsOf = async (url: URL): Promise<ConnectionOptions> => {
    const host = url.hostname.replace(/^\[|\]$/g, "");
    return {
      host,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      rejectUnauthorized: settings.certificateDemanded,
      ...(settings.caFile === undefined ? {} : { ca: await readFile(settings.caFile) }),
    };
  };

  /** A client that has logged in at `url`; closed again where that fails. */
  const loggedIn = async (url: string, dn: string, password: string): Promise<Client> => {
    const address = new URL(url);
    const client = new Client({
      url,
      timeout: SEARCH_LIMIT_MS,
      connectTimeout: CONNECT_LIMIT_MS,
      ...(address.protocol === "ldaps:" ? { tlsOptions: await tlsOf(address) } : {}),
    });
    const login = async (): Promise<void> => {
      if (settings.startTls && address.protocol === "ldap:") await client.startTLS(await tlsOf(address));
      await client.bind(dn, password);
    };
    try {
      await within(LOGIN_LIMIT_MS, login(), () => close(client));
      return client;
    } catch (thrown) {
      close(client);
      throw thrown;
    }
  };

  const isTrouble = (thrown: unknown): boolean =>
    !(thrown instanceof ResultCodeError) || SERVER_TROUBLE.has(thrown.code);

  /** Tries the servers in their order, and remembers when none answers. */
  const atSomeServer = async (dn: string, password: string): Promise<Client> => {
    if (Math.abs(awayUntilMs - clock.nowMs()) <= AWAY_MS && clock.nowMs() < awayUntilMs) throw unavailable(reason);
    let last: unknown;
    for (const url of settings.urls) {
      try {
        return await loggedIn(url, dn, password);
      } catch (thrown) {
        if (!isTrouble(thrown)) throw thrown;
        last = thrown;
      }
    }
    reason = messageOf(last);
    awayUntilMs = clock.nowMs() + AWAY_MS;
    throw unavailable(reason);
  };

  const open = async (): Promise<Client> => {
    try {
      opened = await atSomeServer(settings.bindDn, settings.bindPassword);
      return opened;
    } catch (thrown) {
      if (codeOf(thrown) === "directory-unavailable") throw thrown;
      throw unavailable(`login as ${settings.bindDn || "nobody"}: ${messageOf(thrown)}`);
    } finally {
      opening = undefined;
    }
  };

  /** The connection for searches; one that a server closed and the library would open again is not logged in, and is not used. */
  const client = (): Promise<Client> | Client => {
    if (opened?.isBound === true) return opened;
    opened = undefined;
    opening ??= open();
    return opening;
  };

  const searchOnce = async (using: Client, search: LdapSearch): Promise<LdapEntry[]> => {
    const entries: LdapEntry[] = [];
    const pages = using.searchPaginated(search.base, {
      scope: search.scope,
      filter: search.filter,
      attributes: [...search.attributes],
      paged: { pageSize: settings.pageSize },
    });
    for await (const { searchEntries } of pages) {
      for (const entry of searchEntries) entries.push(entryOf(entry));
      if (entries.length >= ENTRIES_MAX) break;
    }
    return entries.slice(0, ENTRIES_MAX);
  };

  const giveUp = (using: Client): void => {
    if (opened === using) opened = undefined;
    close(using);
  };

  const searchOn = async (search: LdapSearch, mayRetry: boolean): Promise<LdapEntry[]> => {
    const isOld = opened !== undefined;
    const using = await client();
    try {
      return await within(SEARCH_LIMIT_MS, searchOnce(using, search), () => giveUp(using));
    } catch (thrown) {
      if (thrown instanceof NoSuchObjectError || thrown instanceof InvalidDNSyntaxError) return [];
      if (!isTrouble(thrown)) throw unavailable(messageOf(thrown));
      giveUp(using);
      // A server that closed a connection which lay idle is not away.
      if (isOld && mayRetry) return searchOn(search, false);
      throw unavailable(messageOf(thrown));
    }
  };

  return {
    search: (search) => searching(() => searchOn(search, true)),
    authenticate: (dn, password) =>
      checking(async () => {
        try {
          close(await atSomeServer(dn, password));
          return true;
        } catch (thrown) {
          // Also where the server has other reasons to refuse the user: a lock, a password that has ended.
          if (thrown instanceof ResultCodeError) return false;
          throw thrown;
        }
      }),
    [Symbol.asyncDispose]: async () => {
      const last = opened ?? (await opening?.catch(() => undefined));
      opened = undefined;
      if (last !== undefined) close(last);
    },
  };
};
