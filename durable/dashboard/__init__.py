"""The dashboard: what executions do and why, in a browser, from nothing but the store; and the acts that mend it.

    browser ──▶ guard ──▶ application ──▶ pages ──▶ templates        what is there
                  │           ├──▶ live      pages again, as they change
                  │           ├──▶ writes    forms ──┐
                  │           └──▶ api       JSON ───┴──▶ acts       what may be done
                access                                     │
                                      Durable, Operator ◀──┘

    app.mount("/durable", dashboard(durable, auth=os.environ["DASHBOARD_TOKEN"]))

It is an ASGI application without a lifespan of its own, and needs the extra `dashboard`. Every payload, name, error and
note is text: nothing that comes out of a store is ever markup.
"""

from durable.dashboard.access import Auth
from durable.dashboard.application import dashboard
from durable.dashboard.veil import Redact

__all__ = ["Auth", "Redact", "dashboard"]
