import { createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { GenericContainer, getContainerRuntimeClient, ImageName, StartupCheckStrategy } from 'testcontainers';
import { containerNetwork } from './network.ts';
import type { Part, Report } from './part.ts';
import { type Readiness, untilReady } from './readiness.ts';

export interface ContainerSpec extends Readiness {
  readonly image: string;
  readonly command?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Path in the container → text. */
  readonly files?: Readonly<Record<string, string>>;
  /** The same inside and outside. */
  readonly ports: readonly ContainerPort[];
  readonly stopTimeoutMs: number;
}

export interface ContainerPort {
  readonly number: number;
  readonly protocol: 'tcp' | 'udp';
}

/**
 * Whether an image can be run: a Docker engine answers (or one that speaks its language) and has it or can fetch it.
 */
export async function canRunImage(image: string, report: Report): Promise<boolean> {
  const client = await getContainerRuntimeClient().catch(() => undefined);
  if (client === undefined) return false;
  const name = ImageName.fromString(image);
  if (await client.image.exists(name)) return true;
  report(`fetching the image ${image}, once …`);
  try {
    await client.image.pull(name);
    return true;
  } catch (error) {
    report(`${image} could not be fetched: ${error instanceof Error ? error.message : String(error)}`);
    return false;
  }
}

/** Starts a container and resolves when it is ready. Testcontainers removes it when this process has ended. */
export async function startContainer(spec: ContainerSpec): Promise<Part> {
  const client = await getContainerRuntimeClient();
  const created = await describe(spec).start();
  const container = client.container.getById(created.getId());

  async function state(): Promise<{ readonly isRunning: boolean; readonly exitCode: number }> {
    const { State } = await client.container.inspect(container);
    return { isRunning: State.Running, exitCode: State.ExitCode };
  }

  async function serving(): Promise<void> {
    const output = await client.container.logs(container);
    const logged = pipeline(output, createWriteStream(spec.logFile));
    try {
      await untilReady(spec, async () => {
        const { isRunning, exitCode } = await state();
        if (isRunning) return undefined;
        await logged;
        return exitCode;
      });
    } catch (error) {
      await created.stop();
      throw error;
    }
  }

  await serving();
  return {
    start: async () => {
      if ((await state()).isRunning) return;
      await container.start();
      await serving();
    },
    stop: async () => {
      if ((await state()).isRunning) await container.stop({ t: Math.ceil(spec.stopTimeoutMs / 1_000) });
    },
    kill: async () => {
      if ((await state()).isRunning) await container.kill();
    },
    pause: () => container.pause(),
    resume: () => container.unpause(),
    logFile: spec.logFile,
  };
}

function describe({ image, command = [], env = {}, files = {}, ports }: ContainerSpec): GenericContainer {
  const container = new LoopbackContainer(image)
    .withCommand([...command])
    .withEnvironment(env)
    .withCopyContentToContainer(Object.entries(files).map(([target, content]) => ({ target, content })))
    .withWaitStrategy(new StartedIsEnough());
  if (containerNetwork.isThisMachine) return container.withNetworkMode('host');
  return container.withExposedPorts(
    ...ports.map(({ number, protocol }) => ({ container: number, host: number, protocol })),
  );
}

/** Publishes ports for this machine alone; Testcontainers would publish them for the whole network. */
class LoopbackContainer extends GenericContainer {
  protected override async beforeContainerCreated(): Promise<void> {
    const bindings: Record<string, { HostPort?: string }[]> = this.hostConfig.PortBindings ?? {};
    this.hostConfig.PortBindings = Object.fromEntries(
      Object.entries(bindings).map(([port, published]) => [
        port,
        published.map((binding) => ({ ...binding, HostIp: '127.0.0.1' })),
      ]),
    );
  }
}

/** We wait for the part ourselves, at each start and not only at the first. */
class StartedIsEnough extends StartupCheckStrategy {
  override async checkStartupState(): Promise<'SUCCESS'> {
    return 'SUCCESS';
  }
}
