/** For tests against real parts: what `vitest-global-setup.ts` has started, and suites that need some of it. */
import { describe, inject, test } from 'vitest';

/** The shared parts' addresses. Plain data: they cross from vitest's main process to the test files. */
export interface RealParts {
  readonly postgres: { readonly url: string; readonly port: number };
  readonly kafka: { readonly brokers: readonly string[]; readonly port: number; readonly javaClasspath: string };
  /** Not shared, since each test file needs its own webhooks: `startLivekit` works. */
  readonly livekit: { readonly isInstalled: true };
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
  const reasons = names.flatMap((name) => {
    const part = inject('startedParts')[name];
    return 'absent' in part ? [part.absent] : [];
  });
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
  const started = inject('startedParts');
  const entries = names.map((name) => {
    const part = started[name];
    if ('absent' in part) throw new Error(part.absent);
    return [name, part.running];
  });
  return Object.fromEntries(entries) as Pick<RealParts, Name>;
}
