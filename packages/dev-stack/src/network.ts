/** How a part stands to this machine's network. */
export interface Network {
  readonly isThisMachine: boolean;
  /** What it listens on to be reachable at 127.0.0.1. */
  readonly bindAddress: string;
  /** The URL at which it reaches what this machine has at `url`. */
  reach(url: string): string;
}

export const thisMachine: Network = { isThisMachine: true, bindAddress: '127.0.0.1', reach: (url) => url };

/**
 * Linux lends a container its network, so that nothing differs from a process. Elsewhere the engine lives in a virtual
 * machine, where this one has another name; ports are published on 127.0.0.1.
 */
export const containerNetwork: Network =
  process.platform === 'linux'
    ? thisMachine
    : {
        isThisMachine: false,
        bindAddress: '0.0.0.0',
        reach: (url) => url.replace('//127.0.0.1', '//host.docker.internal'),
      };
