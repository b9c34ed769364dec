import { ProxyTracerProvider, trace } from '@opentelemetry/api';
import { withDeadline } from './deadline.ts';

/**
 * Sends the spans that are still waiting and ends tracing; the last step of a service's shutdown. What cannot be sent
 * within the deadline is lost: a collector that is away must not hold up a restart. Never rejects.
 */
export async function shutdownTelemetry(deadlineMs = 2_000): Promise<void> {
  const proxy = trace.getTracerProvider();
  const provider = proxy instanceof ProxyTracerProvider ? proxy.getDelegate() : proxy;
  if (!('shutdown' in provider) || typeof provider.shutdown !== 'function') return;
  await withDeadline(Promise.resolve(provider.shutdown()), deadlineMs).catch(() => {});
}
