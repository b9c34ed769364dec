/** For tests against real parts: what `vitest-global-setup.ts` has started, and suites that need some of it. */
import { describe, inject, test } from 'vitest';
import type { Command } from './process-part.ts';

/** The shared parts' addresses. Plain data: they cross from vitest's main process to the test files. */
export interface RealParts {
  readonly postgres: { readonly url: string; readonly port: number };
  readonly kafka: { readonly brokers: readonly string[]; readonly port: number; readonly javaClasspath: string };
  readonly keycloak: { readonly url: string; readonly port: number; readonly issuer: string };
  readonly zipkin: { readonly url: string };
  /** Not shared, since each test file needs its own webhooks; `startLivekit` is quick. */
  readonly livekit: { readonly isInstalled: true };
  readonly chromium: { readonly executablePath: string };
  readonly pgbouncer: { readonly isInstalled: true };
  /** Started by each test file in front of its own LiveKit. */
  readonly nginx: { readonly executablePath: string };
  readonly haproxy: { readonly executablePath: string };
  readonly caddy: { readonly executablePath: string };
  readonly envoy: { readonly executablePath: string };
  /** The producers of `docs/producers`, as commands to run. */
  readonly java: Command;
  readonly python: Command;
  readonly go: Command;
  readonly schemathesis: Command;
}

export type RealPartName = keyof RealParts;

/** Its address, or the reason why it does not run. */
export type StartedPart<Name extends RealPartName> =
  | { readonly running: RealParts[Name] }
  | { readonly absent: string };

export type StartedParts = { readonly [Name in RealPartName]: StartedPart<Name> };

declare module 'vitest' {
  interface ProvidedContext {
    startedParts: StartedParts;
  }
}

/**
 * A suite that needs these parts, whose addresses it gets. When one of them is absent the suite is skipped and says so;
 * with `REQUIRE_REAL_PARTS=1` it fails instead.
 */
export function describeWith<Name extends RealPartName>(
  names: readonly Name[],
  title: string,
  suite: (parts: Pick<RealParts, Name>) => void,
): void {
  const reasons = absences(names);
  if (reasons.length === 0) {
    describe(title, () => suite(realParts(names)));
  } else if (process.env['REQUIRE_REAL_PARTS'] === '1') {
    describe(title, () => {
      test('has its real parts', () => {
        throw new Error(reasons.join('\n'));
      });
    });
  } else {
    process.stderr.write(`\nSKIPPED: ${title}. ${reasons.join(' ')}\n\n`);
    describe.skip(title, () => {
      test(reasons.join(' '), () => undefined);
    });
  }
}

/** The addresses of shared parts, outside of a suite. Throws when one of them is absent. */
export function realParts<Name extends RealPartName>(names: readonly Name[]): Pick<RealParts, Name> {
  const reasons = absences(names);
  if (reasons.length > 0) throw new Error(reasons.join('\n'));
  const started = inject('startedParts');
  const running = names.map((name) => {
    const part = started[name];
    return [name, 'running' in part ? part.running : undefined];
  });
  return Object.fromEntries(running) as Pick<RealParts, Name>;
}

function absences(names: readonly RealPartName[]): string[] {
  const started = inject('startedParts');
  return names.flatMap((name) => {
    const part = started[name];
    return 'absent' in part ? [part.absent] : [];
  });
}
