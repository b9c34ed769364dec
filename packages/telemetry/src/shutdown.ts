import { trace } from '@opentelemetry/api';
import { withDeadline } from './deadline.ts';

const sendWithinMs = 2_000;

/**
 * Sends the spans that are still waiting and ends tracing; the last step of a service's shutdown. What cannot be sent
 * within two seconds is lost: a collector that is away must not hold up a restart. Never rejects.
 */
export async function shutdownTelemetry(): Promise<void> {
  // Told by its shape: the SDK brings a copy of the API's classes with it.
  const proxy = trace.getTracerProvider();
  const provider: unknown =
    'getDelegate' in proxy && typeof proxy.getDelegate === 'function' ? proxy.getDelegate() : proxy;
  if (!canShutDown(provider)) return;
  await withDeadline(Promise.resolve(provider.shutdown()), sendWithinMs).catch(() => {});
}

const canShutDown = (provider: unknown): provider is { shutdown: () => Promise<void> } =>
  typeof provider === 'object' &&
  provider !== null &&
  'shutdown' in provider &&
  typeof provider.shutdown === 'function';
