import { messageOf, RingsteadError } from "../common/errors.ts";
import { exitCodeOf } from "./exit-code.ts";
import { dataDirOf } from "./up-options.ts";

const HELP = `ringstead COMMAND [--data DIR] …

  up        start everything and stay in front, or with --detach leave it running
            --bind ADDR --public-url HOST --port-offset N --devices N | --device PATH … --replicas N
            --only identity,object,… --admin-password P --tls-cert F --tls-key F
  down      drain and stop; exit 0 also when nothing ran; --keep-running leaves exports and guests
  restart   new processes in the place of those that run, without a request that fails; --role proxy,storage-node,…
  status    every process, device and service; --json; exit 0 all well, 1 degraded, 2 down
  repair    status | pause | resume | limit: how devices catch up with each other: ringstead repair help
  serve     ROLE[,ROLE…] --node NAME --config cluster.toml [--key-file F]: roles of a bigger installation
  ring      devices and partitions: ringstead ring help
  scrub     reads every byte and heals what is damaged; status, start, stop: ringstead scrub help
  explain   /ACCOUNT[/CONTAINER[/OBJECT]]: where its replicas lie, what each has, what was damaged: ringstead explain help
  doctor    names each present problem, what it costs and what to do; --json; exit 1 where there are any
  identity  keys and health of the identity service: ringstead identity help
  volume    export ID | attach ID | unexport ID: opens a volume over NBD or iSCSI: ringstead volume help
  demo      store a file and read it back, step by step
  backup    DIR2: control database (a file, or on PostgreSQL), rings and keys, while running
  restore   DIR2: puts a backup into DIR, which is down, and its rows where its cluster.toml says; --config FILE: another cluster.toml
  version   the version
  help      this text

DIR is .ringstead in the checkout unless --data says otherwise.
`;

/** Loaded when asked for, so that `down` and `version` do not read the code of the others. */
const COMMANDS: Readonly<Record<string, () => Promise<(argv: string[]) => Promise<number>>>> = {
  up: async () => (await import("./up.ts")).up,
  down: async () => (await import("./down.ts")).down,
  restart: async () => (await import("./restart.ts")).restart,
  status: async () => (await import("./status.ts")).status,
  repair: async () => (await import("./repair.ts")).repair,
  serve: async () => (await import("./serve.ts")).serve,
  scrub: async () => (await import("./scrub.ts")).scrub,
  doctor: async () => (await import("./doctor.ts")).doctor,
  explain: async () => (await import("./explain.ts")).explain,
  ring: async () => {
    const { ringCommand } = await import("../ring/command.ts");
    return (rest) => ringCommand(rest, undefined, dataDirOf(undefined));
  },
  identity: async () => {
    const { identityCommand } = await import("../identity/command.ts");
    return (rest) => identityCommand(rest, dataDirOf(undefined));
  },
  volume: async () => (await import("./volume.ts")).volume,
  demo: async () => (await import("./demo.ts")).demo,
  backup: async () => (await import("./backup.ts")).backup,
  restore: async () => (await import("./restore.ts")).restore,
  version: async () => {
    const { version } = await import("../common/version.ts");
    return async () => {
      process.stdout.write(`${version()}\n`);
      return 0;
    };
  },
};

const main = async (argv: readonly string[]): Promise<number> => {
  const [name = "help", ...rest] = argv;
  if (
    ["help", "--help", "-h"].includes(name) ||
    (!["ring", "identity", "repair", "scrub", "explain", "doctor"].includes(name) &&
      rest.some((word) => word === "--help" || word === "-h"))
  ) {
    process.stdout.write(HELP);
    return 0;
  }
  const load = Object.hasOwn(COMMANDS, name === "--version" ? "version" : name)
    ? COMMANDS[name === "--version" ? "version" : name]
    : undefined;
  if (load === undefined) throw new RingsteadError("usage", `there is no command "${name}" (see: ringstead help)`);
  const command = await load();
  return command(rest);
};

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (thrown) {
  process.stderr.write(
    `${thrown instanceof RingsteadError ? thrown.message : ((thrown as Error).stack ?? messageOf(thrown))}\n`,
  );
  process.exitCode = exitCodeOf(thrown);
}
