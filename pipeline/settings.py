"""What the environment says: where state lives, and which database holds the ledger."""

from pathlib import Path
from urllib.parse import quote

from pydantic_settings import BaseSettings, SettingsConfigDict

CHECKOUT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Settings read from `EVERGREEN_*` environment variables."""

    model_config = SettingsConfigDict(env_prefix="EVERGREEN_", extra="ignore")

    home: Path = CHECKOUT / ".evergreen"
    database_url: str = ""
    pages_url: str = ""

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger: `EVERGREEN_DATABASE_URL`, or SQLite under the home."""
        return self.database_url or f"sqlite:///{quote(str(self.folder()))}/ledger.sqlite"

    def folder(self, *parts: str) -> Path:
        """Return a folder below the home, made if it was not there."""
        path = self.home.expanduser().resolve().joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path


def settings() -> Settings:
    """Read the environment now; nothing is remembered between calls."""
    return Settings()
